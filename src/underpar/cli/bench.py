"""`underpar bench RECIPE`."""

import argparse
from pathlib import Path

from underpar.cli.options import add_device, add_json, add_recipe, print_json, resolve

HELP = "measure a recipe here: step time, tokens/s, share of the matmul ceiling, memory, loader, scoring"


def configure(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_device(parser)
    parser.add_argument("--steps", type=int, default=20, help="timed steps (default: 20)")
    parser.add_argument("--attention", help="force an attention back end: cudnn, flash, varlen, reference")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.units import format_bytes, format_count
    from underpar.core.world import World
    from underpar.lab.bench import bench_recipe
    from underpar.lab.files import write_json

    resolved = resolve(args)
    world = World.join(args.device)
    found = bench_recipe(resolved, world, steps=args.steps, attention=args.attention)
    if world.is_main:
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(args.output, found)
        if args.json:
            print_json(found)
        else:
            step = found["step"]
            memory = "" if step["peak_memory_bytes"] is None else f", peak {format_bytes(step['peak_memory_bytes'])}"
            print(
                f"{resolved.name}: {step['step_ms']:.1f} ms/step ({step['step_ms_p10']:.1f}-{step['step_ms_p90']:.1f}), "
                f"{format_count(step['tokens_per_second'])} tok/s, "
                f"{step['model_flops_per_second'] / 1e12:.3g} TFLOP/s = {step['matmul_share']:.1%} of the matmul ceiling"
                f"{memory}\n"
                f"optimiser {step['optimiser_ms']:.2f} ms; loader {found['loader']['times_training']:.0f}x training; "
                f"scoring {format_count(found['scoring']['tokens_per_second'])} tok/s with {found['scoring']['window']}"
            )
    world.leave()
    return 0
