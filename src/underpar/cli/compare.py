"""`underpar compare`: is this set of runs better than that one?"""

import argparse
from pathlib import Path

from underpar.cli.options import add_json, finite, print_json

HELP = "test one set of runs against another: Welch, and paired when the seeds match"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="the runs in question")
    parser.add_argument("--against", nargs="+", type=Path, required=True, metavar="RUN_DIR", help="the runs to beat")
    parser.add_argument("--metric", default="val_bpb", choices=("val_bpb", "val_loss"), help="lower is better")
    parser.add_argument(
        "--margin", type=finite, default=0.0, help="ask for an improvement of more than this (default: 0)"
    )
    parser.add_argument("--alpha", type=float, default=0.01, help="significance level (default: 0.01)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the comparison; 0 whatever it says."""
    from underpar.records import load_runs
    from underpar.records.agreement import check_comparable
    from underpar.records.claim import by_seed
    from underpar.stats import compare_runs

    first, second = load_runs(args.run_dirs), load_runs(args.against)
    check_comparable(first, second, args.metric)
    comparison = compare_runs(
        by_seed(first, args.metric),
        by_seed(second, args.metric),
        metric=args.metric,
        shift=0.0 - args.margin,
        alpha=args.alpha,
    )
    names = [runs[0].name for runs in (first, second)]
    if names[0] == names[1]:
        names = ["the first set", "the second set"]
    if args.json:
        print_json(comparison.to_json() | {"sentence": comparison.sentence(*names)})
        return 0
    width = max(map(len, names))
    print(f"{names[0]:<{width}}  {comparison.first}")
    print(f"{names[1]:<{width}}  {comparison.second}")
    print(comparison.welch)
    print(comparison.paired or "paired t-test: not computed, the seeds of the two sets differ")
    print(comparison.sentence(*names))
    return 0
