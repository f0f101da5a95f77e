"""`underpar score RUN` and `underpar score ARTIFACT --data DIR`."""

import argparse
from pathlib import Path
from typing import Any

from underpar.cli.options import add_device, add_json, print_json

HELP = "score a packed artifact on held-out text, every token once"
MODES = ("plain", "ttt", "phased", "sequential", "cached")
"""Those of lab/adaptive.py, which imports torch; a test keeps them equal."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", type=Path, help="a run folder or an artifact file")
    parser.add_argument("--data", type=Path, help="folder of prepared tokens; a run folder knows its own")
    parser.add_argument(
        "--mode", choices=MODES,
        help="without adaptation, with this kind of test-time training, or with a cache of n-grams alone; default: as the "
        "artifact records. Another mode than a run's own is printed, and not written into its folder",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", dest="overrides",
        help="change one setting of the adaptation, as in --set lora.rank=32; printed only, repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS",
        help="for test-time training; documents that do not fit are charged without it (default: the run's own)",
    )  # fmt: skip
    add_device(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.errors import ConfigError
    from underpar.core.world import World
    from underpar.lab.files import RunFolder, read_json
    from underpar.lab.scoring import Scoring, score_artifact, score_run

    if args.budget is not None and not args.budget > 0:
        raise ConfigError(f"--budget {args.budget:g} is no time; give seconds above 0")
    world = World.join(args.device)
    scoring = Scoring(args.mode, tuple(args.overrides), budget_seconds=args.budget)
    if args.target.is_dir():
        folder = RunFolder(args.target)
        data = args.data or Path(read_json(folder.config, "underpar train")["data"])
        summary = score_run(folder, data, world, scoring)
    elif not args.target.is_file():
        raise ConfigError(
            f"there is no run folder or artifact at {args.target}; 'underpar run' and 'underpar pack' make them"
        )
    elif args.data is None:
        raise ConfigError(f"{args.target} is a single artifact: name the held-out tokens with --data DIR")
    else:
        summary, _ = score_artifact(args.target, args.data, world, scoring)
    if world.is_main:
        if args.json:
            print_json(summary)
        else:
            print(_line(summary))
    world.leave()
    return 0


def _line(summary: dict[str, Any]) -> str:
    from underpar.lab.outcome import scoring_time

    label = "" if summary["lossless"] else "  (lossy tokenizer: the text cannot be recovered exactly)"
    before = summary.get("before_adaptation")
    adapted = f"  before adaptation {before['bpb']:.6f}" if before else ""
    return (
        f"{summary['bpb']:.6f} bpb  {summary['loss_nats']:.6f} nats/token  {summary['tokens']:,} tokens  "
        f"{summary['bytes']:,} bytes  {scoring_time(summary)}{adapted}{label}"
    )
