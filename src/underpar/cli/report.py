"""`underpar report`: one page that shows a run, or several seeds over each other."""

import argparse
from pathlib import Path

from underpar.cli.options import add_json, print_json

HELP = "write a self-contained HTML page of one run or several seeds"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="run folders, one for each seed")
    parser.add_argument("--out", type=Path, help="the page to write (default: report.html in the first run folder)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page and print where it is."""
    from underpar.records.report import write_report

    out = args.out or args.run_dirs[0] / "report.html"
    write_report(args.run_dirs, out)
    if args.json:
        print_json({"report": str(out), "bytes": out.stat().st_size})
    else:
        print(out)
    return 0
