"""`underpar run RECIPE`: everything, from text to a checked score and a page."""

import argparse
from pathlib import Path
from typing import Any

from underpar.cli.options import add_json, add_recipe, add_run, print_json, resolve

HELP = "train, pack, score, verify and report a recipe; several seeds also give a record folder"


def configure(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_run(parser)
    parser.add_argument("--seeds", type=int, nargs="+", help="one run per seed (default: the recipe's own seed)")
    parser.add_argument("--fresh", action="store_true", help="ignore checkpoints and start from step 0")
    parser.add_argument("--threshold", type=float, help="bpb that the record's one-sided test is held against")
    parser.add_argument(
        "--sink",
        action="append",
        default=[],
        choices=("tensorboard", "wandb", "trackio"),
        help="also log there; repeatable",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.world import World

    world = World.join(args.device)
    seeds = args.seeds or [None]
    summaries = [_one_seed(args, seed, world) for seed in seeds]
    world.leave()
    if not world.is_main:
        return 0
    folders = [Path(s["run"]) for s in summaries]
    _finish(args, folders, summaries)
    return 0 if all(s["verdict"] == "valid" for s in summaries) else 1


def _one_seed(args: argparse.Namespace, seed: int | None, world: Any) -> dict[str, Any]:
    from underpar.lab import pipeline
    from underpar.lab.files import RunFolder
    from underpar.train.sinks import open_sinks

    resolved = resolve(args, *([] if seed is None else [f"seed={seed}"]))
    folder = RunFolder.of(args.out, resolved.name, resolved.config.seed)
    if world.is_main:
        folder.path.mkdir(parents=True, exist_ok=True)
    data = pipeline.find_data(resolved, args.data, world)
    sinks = tuple(open_sinks(args.sink, folder.path, resolved.name)) if world.is_main else ()
    pipeline.train(resolved, folder, data, world, sinks=sinks, resume=not args.fresh)
    if world.is_main:
        pipeline.say("packing")
        pipeline.pack_run(folder)
    world.barrier()
    if world.is_main:
        pipeline.say("scoring the packed model")
    pipeline.score_run(folder, data, world)
    world.barrier()
    if not world.is_main:
        return {}
    pipeline.say("verifying in a clean process")
    verdict = pipeline.verify_run(folder, data, world.device)
    pipeline.say(pipeline.summary_line(folder))
    return pipeline.run_summary(folder) | {"verdict": verdict, "run": str(folder.path)}


def _finish(args: argparse.Namespace, folders: list[Path], summaries: list[dict[str, Any]]) -> None:
    from underpar.lab import pipeline

    page = pipeline.report_runs(folders)
    record = pipeline.record_runs(folders, threshold=args.threshold) if len(folders) > 1 else None
    if args.json:
        print_json({"runs": summaries, "report": str(page), "record": str(record) if record else None})
        return
    pipeline.print_outcome(folders[-1], summaries)
    if record:
        print(f"record   {record}")
    print(f"page     {page}")
