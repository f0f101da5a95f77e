"""`underpar bench RECIPE`."""

import argparse
from pathlib import Path
from typing import Any

from underpar.cli.options import add_device, add_json, add_recipe, print_json, resolve

HELP = "measure a recipe here: step time of every phase, tokens/s, share of the matmul ceiling, memory, loader, scoring"

BACKENDS = ("flash4", "cudnn", "flash", "varlen", "reference")
"""Those of kernels/attention, which imports torch; a test keeps them equal."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_device(parser)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each phase (default: 20)")
    parser.add_argument(
        "--share-of", type=int, metavar="N", help="time what one of N processes computes, without their communication"
    )
    parser.add_argument("--attention", help=f"force an attention back end: {', '.join(BACKENDS)}")
    parser.add_argument(
        "--profile", action="store_true", help="also divide a step's device time among kinds of kernels"
    )
    parser.add_argument(
        "--compile", action="store_true", help="also time compilation in fresh processes, with caches empty and filled"
    )
    parser.add_argument(
        "--compile-only", action="store_true", help="only compile and warm up, and say how long it took"
    )
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.errors import ConfigError
    from underpar.core.world import World
    from underpar.lab.bench import bench_recipe, cold_and_warm, warm_up_seconds
    from underpar.lab.files import write_json
    from underpar.lab.share import Share

    if args.steps < 1:
        raise ConfigError(f"--steps {args.steps} is nothing to time; give at least 1")
    resolved = resolve(args)
    world = World.join(args.device)
    if args.share_of is not None:
        world = Share.of(world, args.share_of)
    if args.compile_only:
        found: dict[str, Any] = warm_up_seconds(resolved, world, args.attention)
    else:
        fresh = {"compilation": cold_and_warm(_same(args))} if args.compile and world.is_main else {}
        world.barrier()
        found = fresh | bench_recipe(resolved, world, steps=args.steps, attention=args.attention, profiled=args.profile)
    if world.is_main:
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(args.output, found)
        if args.json:
            print_json(found)
        else:
            print("\n".join(_compile_lines(found) if args.compile_only else _lines(found)))
    world.leave()
    return 0


def _same(args: argparse.Namespace) -> list[str]:
    """The arguments that choose what is compiled."""
    words = [args.recipe]
    for name in ("track", "device", "share_of", "attention"):
        if getattr(args, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return words + [word for text in args.overrides for word in ("--set", text)]


def _compile_lines(found: dict[str, float]) -> list[str]:
    return [f"compilation {found['compile']:.1f} s, rest of the warm-up {found['warm-up']:.1f} s"]


def _lines(found: dict[str, Any]) -> list[str]:
    from underpar.core.units import format_count

    lines = [_step_line(found["recipe"], phase) for phase in found["phases"]]
    lines.append(
        f"optimiser {found['step']['optimiser_ms']:.2f} ms; loader {found['loader']['times_training']:.0f}x training; "
        f"scoring {format_count(found['scoring']['tokens_per_second'])} tok/s with {found['scoring']['window']}"
    )
    if "compilation" in found:
        cold, warm = found["compilation"]["cold"], found["compilation"]["warm"]
        lines.append(
            f"compilation {cold['compile']:.1f} s, {warm['compile']:.1f} s with filled caches; "
            f"rest of the warm-up {cold['warm-up']:.1f} s"
        )
    for phase, profile in zip(found["phases"], found.get("profiles", []), strict=False):
        lines += _profile_lines(phase, profile)
    return lines


def _profile_lines(step: dict[str, Any], profile: dict[str, Any]) -> list[str]:
    shares = sorted(profile["shares"].items(), key=lambda item: -item[1])
    return [
        f"device busy {profile['busy_ms']:.1f} ms of a step{_phase(step)}: "
        + ", ".join(f"{kind} {share:.1%}" for kind, share in shares)
    ] + [
        f"  {kernel['ms']:8.3f} ms  {kernel['calls']:6.1f} calls  {kernel['class']:<13} {kernel['kernel']}"
        for kernel in profile["largest"]
    ]


def _phase(step: dict[str, Any]) -> str:
    named = "".join(f", {key} {_shown(value)}" for key, value in step["phase"].items())
    return f"{named}, {step['batch_tokens']:,} tokens"


def _step_line(name: str, step: dict[str, Any]) -> str:
    from underpar.core.units import format_bytes, format_count

    memory = "" if step["peak_memory_bytes"] is None else f", peak {format_bytes(step['peak_memory_bytes'])}"
    again = f", {step['recompilations']} recompilation(s)" if step["recompilations"] else ""
    return (
        f"{name}{_phase(step)}: {step['step_ms']:.1f} ms/step ({step['step_ms_p10']:.1f}-{step['step_ms_p90']:.1f}), "
        f"{format_count(step['tokens_per_second'])} tok/s, "
        f"{step['model_flops_per_second'] / 1e12:.3g} TFLOP/s = {step['matmul_share']:.1%} of the matmul ceiling"
        f"{memory}{again}"
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)
