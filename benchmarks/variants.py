"""Train variants of a recipe one after another under one time budget, and print the held-out bpb before quantisation.

    python benchmarks/variants.py quickstart --variant 'model.num_layers=2' --variant 'model.mlp.ratio=4 model.num_layers=4'

A variant is overrides separated by spaces. Keep the machine idle: the timer is the budget.
"""

import argparse
import tempfile
from pathlib import Path

from underpar.core.world import World
from underpar.lab.build import build_trainer
from underpar.lab.data import find_data
from underpar.recipes import registry


def run(recipe: str, variant: str, seconds: float, data: Path | None) -> str:
    """One line: bpb, parameters, steps and tokens a second."""
    world = World.join()
    resolved = registry.resolve(recipe, overrides=[f"budget.train_seconds={seconds}", *variant.split()])
    with tempfile.TemporaryDirectory() as checkpoints:
        result = build_trainer(resolved, find_data(resolved, data, world), world, Path(checkpoints)).run()
    found = list(result.validation.values())[-1]
    return f"{found['bpb']:.4f} bpb  {result.params:,} params  {result.steps:,} steps  {result.tokens_per_second:,.0f} tok/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--variant", action="append", default=[], help="overrides; repeatable; none trains the recipe")
    args = parser.parse_args()
    for variant in args.variant or [""]:
        print(f"{variant or args.recipe}: {run(args.recipe, variant, args.seconds, args.data)}", flush=True)


if __name__ == "__main__":
    main()
