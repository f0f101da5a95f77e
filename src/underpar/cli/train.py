"""`underpar train RECIPE`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from underpar.cli.options import add_json, add_recipe, add_run, add_training, print_json, resolve

if TYPE_CHECKING:
    from underpar.core.recipe import Resolved
    from underpar.core.world import World
    from underpar.lab.files import RunFolder
    from underpar.recipes import Recipe
    from underpar.train.training import TrainResult

HELP = "train a recipe; the same command after an interruption goes on from its checkpoint"


def configure(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_run(parser)
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    add_training(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.world import World
    from underpar.lab.data import find_data
    from underpar.lab.files import RunFolder

    resolved = resolve(args, *([] if args.seed is None else [f"seed={args.seed}"]))
    world = World.join(args.device)
    data = find_data(resolved, args.data, world)
    folder = RunFolder.of(args.out, resolved.name, resolved.config.seed)
    result = obtain(args, resolved, folder, data, world)
    if world.is_main:
        if args.json:
            print_json(result.to_json() | {"run": str(folder.path)})
        else:
            print(f"{folder.path}: {result.steps:,} steps, {result.tokens:,} tokens, loss {result.final_loss_nats:.4f}")
    world.leave()
    return 0


def obtain(
    args: argparse.Namespace, resolved: "Resolved[Recipe]", folder: "RunFolder", data: Path, world: "World"
) -> "TrainResult":
    """Train into `folder`, or with --trained-as take over the training of a finished run."""
    from underpar.lab.files import RunFolder
    from underpar.lab.training import take_training, train
    from underpar.train.sinks import open_sinks

    if args.trained_as:
        trained = RunFolder.of(args.out, args.trained_as, resolved.config.seed)
        return take_training(resolved, folder, trained, data, world)
    folder.path.mkdir(parents=True, exist_ok=True)
    wanted: list[str] = args.sink if world.is_main else []
    sinks = tuple(open_sinks(wanted, folder.path, f"{resolved.name} seed {resolved.config.seed}"))
    return train(resolved, folder, data, world, sinks=sinks, resume=not args.fresh)
