"""`underpar score RUN` and `underpar score ARTIFACT --data DIR`."""

import argparse
from pathlib import Path

from underpar.cli.options import add_device, add_json, print_json

HELP = "score a packed artifact on held-out text, every token once"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", type=Path, help="a run folder or an artifact file")
    parser.add_argument("--data", type=Path, help="folder of prepared tokens; a run folder knows its own")
    add_device(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.errors import ConfigError
    from underpar.core.world import World
    from underpar.lab import pipeline
    from underpar.lab.files import RunFolder, read_json

    world = World.join(args.device)
    if args.target.is_dir():
        folder = RunFolder(args.target)
        data = args.data or Path(read_json(folder.config, "underpar train")["data"])
        summary = pipeline.score_run(folder, data, world)
    elif args.data is None:
        raise ConfigError(f"{args.target} is a single artifact: name the held-out tokens with --data DIR")
    else:
        summary, _ = pipeline.score_artifact(args.target, args.data, world)
    if world.is_main:
        if args.json:
            print_json(summary)
        else:
            label = "" if summary["lossless"] else "  (lossy tokenizer: the text cannot be recovered exactly)"
            print(
                f"{summary['bpb']:.6f} bpb  {summary['loss_nats']:.6f} nats/token  {summary['tokens']:,} tokens  "
                f"{summary['bytes']:,} bytes  {summary['eval_seconds']:.1f} s{label}"
            )
    world.leave()
    return 0
