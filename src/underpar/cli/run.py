"""`underpar run RECIPE`: everything, from text to a checked score and a page."""

import argparse
from pathlib import Path
from typing import Any

from underpar.cli.options import add_json, add_recipe, add_run, add_training, finite, print_json, resolve
from underpar.cli.train import obtain

HELP = (
    "train, pack, score, verify and report a recipe, or time it to its target; several seeds also give a record folder"
)


def configure(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_run(parser)
    parser.add_argument("--seeds", type=int, nargs="+", help="one run per seed (default: the recipe's own seed)")
    add_training(parser)
    parser.add_argument("--author", default="anonymous", help="who the record folder names")
    parser.add_argument(
        "--baseline", metavar="RECIPE", help="with a target: also run this one, in turns, and compare times"
    )
    parser.add_argument("--threshold", type=finite, help="bpb that the record's one-sided test is held against")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.cli.target import race
    from underpar.core.errors import ConfigError
    from underpar.core.world import World

    twice = [seed for seed in args.seeds or () if args.seeds.count(seed) > 1]
    if twice:
        raise ConfigError(f"--seeds has {twice[0]} twice; a seed is one run")
    if resolve(args).config.evaluate.target_nats is not None:
        return race(args)
    if args.baseline:
        raise ConfigError("--baseline is for recipes with a target (evaluate.target_nats); use 'underpar compare'")
    world = World.join(args.device)
    seeds = args.seeds or [None]
    summaries = [_one_seed(args, seed, world) for seed in seeds]
    world.leave()
    if not world.is_main:
        return 0
    _finish(args, summaries)
    return 0 if all(s["valid"] for s in summaries) else 1


def _one_seed(args: argparse.Namespace, seed: int | None, world: Any) -> dict[str, Any]:
    from underpar.lab.data import find_data
    from underpar.lab.files import RunFolder
    from underpar.lab.outcome import run_summary
    from underpar.lab.packing import pack_run
    from underpar.lab.say import say
    from underpar.lab.scoring import score_run
    from underpar.referee.verify import verify_run

    resolved = resolve(args, *([] if seed is None else [f"seed={seed}"]))
    folder = RunFolder.of(args.out, resolved.name, resolved.config.seed)
    data = find_data(resolved, args.data, world)
    obtain(args, resolved, folder, data, world)
    if world.is_main:
        say("packing")
        pack_run(folder)
    world.barrier()
    if world.is_main:
        say("scoring the packed model")
    score_run(folder, data, world)
    world.barrier()
    if not world.is_main:
        return {}
    say("verifying in a clean process")
    verdict = verify_run(folder.path, device=world.device.partition(":")[0])
    return run_summary(folder) | {"verdict": str(verdict), "valid": verdict.is_valid, "run": str(folder.path)}


def _finish(args: argparse.Namespace, summaries: list[dict[str, Any]]) -> None:
    from underpar.lab.files import RunFolder
    from underpar.lab.outcome import outcome_lines, record_runs
    from underpar.records import write_report

    folders = [Path(s["run"]) for s in summaries]
    page = folders[-1] / "report.html" if len(folders) == 1 else folders[0].parent / "report.html"
    write_report(folders, page)
    record = record_runs(folders, author=args.author, threshold=args.threshold) if len(folders) > 1 else None
    if args.json:
        print_json({"runs": summaries, "report": str(page), "record": str(record) if record else None})
        return
    for summary in summaries:
        print("\n".join(outcome_lines(RunFolder(Path(summary["run"])), summary)))
    if record:
        print(f"record   {record}")
    print(f"page     {page}")
