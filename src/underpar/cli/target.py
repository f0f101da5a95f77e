"""`underpar target`: did these runs reach a loss, how long did they take, and is that faster?"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from underpar.cli.options import add_json, positive, print_json

HELP = "time to a target loss: one-sided test, misses, margin; against a baseline; with --record a speedrun folder"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="runs of one recipe")
    parser.add_argument("--target", type=positive, default=3.28, help="loss in nats per token (default: 3.28)")
    parser.add_argument(
        "--steps", action="store_true", help="the optimiser track: fewest steps by the z-rule, not seconds"
    )
    parser.add_argument("--against", nargs="+", type=Path, default=[], metavar="RUN_DIR", help="baseline, same machine")
    parser.add_argument(
        "--anchors", nargs="+", type=Path, default=[], metavar="RUN_DIR", help="runs of a reference recipe"
    )
    parser.add_argument("--reference", type=positive, help="seconds that the anchors stand for; needs --anchors")
    parser.add_argument("--record", type=Path, help="write a record folder there")
    parser.add_argument("--author", default="anonymous", help="who the record folder names")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """0 when the mean loss is significantly at or below the target, 1 when not."""
    from underpar.core.errors import ConfigError
    from underpar.lab import target

    if bool(args.anchors) != (args.reference is not None):
        raise ConfigError("--anchors and --reference belong together: runs of a recipe, and the seconds they stand for")
    judge = target.judge_steps if args.steps else target.judge
    found = judge(args.run_dirs, args.against, args.target)
    if args.anchors:
        factor = target.calibration(args.anchors, args.reference)
        found |= {"calibration": factor.to_json(), "calibrated": target.calibrated(args.run_dirs, factor)}
    if args.record:
        record = target.record(
            args.run_dirs, args.against, args.target, out=args.record, author=args.author, counts_steps=args.steps
        )
        found["folder"] = str(record)
    show(args, found, target.lines(args.run_dirs, args.target))
    return 0 if found["passes"] else 1


def show(args: argparse.Namespace, found: dict[str, Any], lines: list[str]) -> None:
    """Print what was found."""
    if args.json:
        print_json(found)
        return
    print("\n".join(lines))
    print(found["sentence"])
    for key, label in (
        ("baseline_sentence", "baseline"),
        ("comparison", "faster?"),
        ("calibrated", "machine"),
        ("folder", "record"),
    ):
        if key in found:
            print(f"{label:<9}{found[key]}")


def race(args: argparse.Namespace) -> int:
    """Train every seed of the recipe, and of --baseline in turns with it, then judge them. No artifact is made.

    Runs that are there already are taken as they are, unless --fresh. Raises ConfigError for a training taken from elsewhere:
    its time is not this recipe's.
    """
    from underpar.cli.options import resolve
    from underpar.cli.train import obtain
    from underpar.core.errors import ConfigError
    from underpar.core.world import World
    from underpar.lab import target
    from underpar.lab.data import find_data
    from underpar.lab.files import RunFolder

    if args.baseline == args.recipe:
        raise ConfigError(f"--baseline {args.baseline} is the recipe itself; name another")
    if args.trained_as:
        raise ConfigError(
            f"--trained-as {args.trained_as}: {args.recipe} has a target (evaluate.target_nats), so its training is what is "
            "timed; leave the option out, or judge finished runs with 'underpar target'"
        )
    world = World.join(args.device)
    recipes = [args.recipe, *([args.baseline] if args.baseline else [])]
    folders: dict[str, list[Path]] = {name: [] for name in recipes}
    goal = 0.0
    for name, seed in target.in_turns(recipes, args.seeds or [None]):
        chosen = argparse.Namespace(**vars(args) | {"recipe": name})
        resolved = resolve(chosen, *([] if seed is None else [f"seed={seed}"]))
        folder = RunFolder.of(args.out, resolved.name, resolved.config.seed)
        done = target.is_timed(folder, resolved.fingerprint) and not args.fresh if world.is_main else False
        if not world.agree(done)[0]:
            obtain(chosen, resolved, folder, find_data(resolved, args.data, world), world)
            if world.is_main:  # gigabytes a run, and nothing is packed from them
                shutil.rmtree(folder.checkpoints, ignore_errors=True)
        folders[name].append(folder.path)
        goal = goal if name != args.recipe else float(resolved.config.evaluate.target_nats or 0.0)
    world.leave()
    if not world.is_main:
        return 0
    ours, baseline = folders[args.recipe], folders[args.baseline] if args.baseline else []
    found = target.judge(ours, baseline, goal)
    if len(ours) > 1:
        found["folder"] = str(target.record(ours, baseline, goal, out=None, author=args.author))
    show(args, found, target.lines(ours, goal))
    return 0 if found["passes"] or (len(ours) == 1 and not found["record"]["missed"]) else 1
