"""Train variants of a recipe one after another under one time budget, and print the held-out bpb before quantisation.

    python benchmarks/variants.py quickstart --variant 'model.num_layers=2' --variant 'model.mlp.ratio=4 model.num_layers=4'

A variant is overrides separated by spaces. Keep the machine idle: the timer is the budget.
"""

import argparse
import tempfile
from pathlib import Path

from underpar.core.world import World
from underpar.data.loaders import StepLoader
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import load_validation
from underpar.evaluate.score import score
from underpar.lab.pipeline import build_model, find_data
from underpar.recipes import registry
from underpar.train.events import Sinks
from underpar.train.loop import Trainer


def run(recipe: str, variant: str, seconds: float, data: Path | None) -> str:
    """One line: bpb, parameters, steps and tokens a second."""
    world = World.join()
    resolved = registry.resolve(recipe, overrides=[f"budget.train_seconds={seconds}", *variant.split()])
    config = resolved.config
    folder = find_data(resolved, data, world)
    bos_id = load_tokenizer(folder).bos_id
    model = build_model(config, world)
    micro = config.train.micro_batch_tokens
    with tempfile.TemporaryDirectory() as checkpoints:
        trainer = Trainer(
            model=model,
            optimisers=config.optim.build(model, world),
            schedule=config.schedule,
            budget=config.budget,
            loader=StepLoader(folder, config.data.loader, bos_id, world, micro_batch_tokens=micro),
            training=config.train,
            world=world,
            folder=Path(checkpoints),
            fingerprint=resolved.fingerprint,
            sinks=Sinks(),
        )
        result = trainer.run()
    size = config.evaluate.batch_tokens
    found = score(model, load_validation(folder), config.evaluate.window, bos_id=bos_id, world=world, batch_tokens=size)
    return (
        f"{found.bpb:.4f} bpb  {result.params:,} params  {result.steps:,} steps  {result.tokens_per_second:,.0f} tok/s"
    )


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
