"""Is the fast path the same mathematics? Trains one recipe from one seed several ways and compares the losses, step by step.

    python benchmarks/same_mathematics.py golf/baseline --track golf-mini --data data/corpus_sp1024 --out same.json

Ways: `fast` (kernels, compiled), `fast again` (its run-to-run noise), `plain` (every operation's reference in plain torch, not
compiled, attention by torch's own choice of FlashAttention-2). The fast path passes when its distance from plain is no larger
than what a change of seed does by far, and comparable with its distance from itself.
"""

import argparse
import contextlib
import statistics
from pathlib import Path

import torch

from underpar.core.world import World
from underpar.data.loaders import StepLoader
from underpar.data.tokenizers import load_tokenizer
from underpar.kernels.attention import forced
from underpar.kernels.dispatch import plain_torch
from underpar.lab.build import build_model
from underpar.lab.environment import describe_environment
from underpar.lab.files import write_json
from underpar.optim.schedules import Progress
from underpar.recipes import Recipe, registry


def losses_of(config: Recipe, data: Path, world: World, *, steps: int, compiled: bool) -> list[float]:
    """Training losses in nats, one per step, from the first token of the data."""
    model = build_model(config, world)
    model.compute_dtype = config.train.dtype(world)
    optimisers = config.optim.build(model, world)
    forward = torch.compile(model, dynamic=False, fullgraph=True) if compiled else model
    loader = config.data.loader
    micro = min(config.train.micro_batch_tokens, 65_536)  # eager activations are large
    reader = StepLoader(data, loader, load_tokenizer(data).bos_id, world, micro_batch_tokens=micro)
    found = []
    for step, batches in zip(range(steps), reader, strict=False):
        total = torch.zeros((), device=world.device)
        for batch in batches:
            loss = forward(batch.inputs, batch.targets, batch.context).sum() / loader.batch_tokens
            loss.backward()
            total += loss.detach()
        optimisers.step(config.schedule.at(Progress(step, step * loader.batch_tokens, 0.0), config.budget))
        model.zero_grad(set_to_none=True)
        found.append(total)
    return [float(loss) for loss in found]


def distance(a: list[float], b: list[float]) -> dict[str, float]:
    """How far apart two curves are, in nats, over the second half."""
    gaps = [x - y for x, y in zip(a, b, strict=True)][len(a) // 2 :]
    return {
        "mean": statistics.fmean(gaps),
        "mean_abs": statistics.fmean(map(abs, gaps)),
        "max_abs": max(map(abs, gaps)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--track")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    overrides = [f"budget.train_steps={args.steps * 100}", "budget.train_seconds=None"]
    config = registry.resolve(args.recipe, track=args.track, overrides=overrides).config
    reseeded = registry.resolve(args.recipe, track=args.track, overrides=[*overrides, f"seed={config.seed + 1}"]).config
    world = World.join()
    flash = forced("flash") if world.device != "cpu" else contextlib.nullcontext()
    curves = {
        "fast": losses_of(config, args.data, world, steps=args.steps, compiled=world.device != "cpu"),
        "fast again": losses_of(config, args.data, world, steps=args.steps, compiled=world.device != "cpu"),
        "other seed": losses_of(reseeded, args.data, world, steps=args.steps, compiled=world.device != "cpu"),
    }
    with plain_torch(), flash:
        curves["plain"] = losses_of(config, args.data, world, steps=args.steps, compiled=False)
    distances = {name: distance(curve, curves["fast"]) for name, curve in curves.items() if name != "fast"}
    for name, gap in distances.items():
        print(
            f"{name:11} - fast: mean {gap['mean']:+.5f}  mean |.| {gap['mean_abs']:.5f}  max |.| {gap['max_abs']:.5f} nats"
        )
    if args.out:
        result = {"recipe": args.recipe, "steps": args.steps, "distances": distances, "losses": curves}
        write_json(args.out, result | {"environment": describe_environment("both")})


if __name__ == "__main__":
    main()
