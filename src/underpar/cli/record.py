"""`underpar record`: runs of several seeds become one record folder."""

import argparse
import sys
from datetime import date
from pathlib import Path

from underpar.cli.options import add_json, finite, print_json

HELP = "write a record folder from the runs of several seeds"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="run folders, one for each seed")
    parser.add_argument("--out", type=Path, required=True, help="the record folder to create")
    parser.add_argument("--author", required=True, help="who submits the record")
    parser.add_argument("--github-id", help="account of the author (default: the author)")
    parser.add_argument("--name", help="title of the record (default: the recipe)")
    parser.add_argument("--blurb", help="one paragraph on the idea (default: the recipe's summary)")
    parser.add_argument("--date", type=_date, help="ISO date (default: today, UTC)")
    parser.add_argument("--threshold", type=finite, help="claim a mean below this value, and test the claim")
    parser.add_argument("--reference", default="", help="where the threshold comes from")
    parser.add_argument("--metric", default="val_bpb", choices=("val_bpb", "val_loss"), help="what the claim is about")
    parser.add_argument("--alpha", type=float, default=0.01, help="significance level of the claim (default: 0.01)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the record; 0 when written, whatever its claim or compliance came to."""
    from underpar.core.errors import ConfigError
    from underpar.records import Claim, load_runs, write_record

    if args.reference and args.threshold is None:
        raise ConfigError("--reference says where a threshold comes from; name it with --threshold")
    first = load_runs(args.run_dirs)[0]
    claim = None
    if args.threshold is not None:
        claim = Claim(args.threshold, alpha=args.alpha, metric=args.metric, reference=args.reference)
    written = write_record(
        args.run_dirs,
        args.out,
        author=args.author,
        github_id=args.github_id or args.author,
        name=args.name or first.name,
        blurb=args.blurb or str(first.config.get("summary") or first.name),
        claim=claim,
        date=args.date,
    )
    if args.json:
        print_json(written.submission)
    else:
        print(written)
        if written.outcome:
            print(written.outcome.sentence())
    for check in written.checks:
        if not check.passed:
            print(f"not met: {check.key}: {check.statement}", file=sys.stderr)
    return 0


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no date such as 2026-04-30") from None
