"""`underpar audit FOLDER`, `underpar audit TREE`, `underpar audit SCRIPT`: do the files of records hold together?"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from underpar.cli.options import count

if TYPE_CHECKING:
    from underpar.referee.audit.track import Track

HELP = "read record folders of either game and say whether their figures hold together"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", type=Path, help="a record folder, a tree of them, or a .py script; nothing is executed"
    )
    parser.add_argument(
        "--track",
        help="golf-record, golf-non-record, speedrun-small, speedrun-medium or speedrun-steps (default: what the folder says)",
    )
    parser.add_argument("--against", type=Path, help="for one folder: the earlier record to test it against")
    parser.add_argument("--all", action="store_true", help="for one folder: spell out what held, too")
    parser.add_argument("--page", type=Path, help="for a tree: also write a page with filters to this file")
    parser.add_argument("--jobs", type=count, help="for a tree: processes (default: one for each core)")
    parser.add_argument("--source", action="store_true", help="for a script: print its innermost source, unpacked")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """0 valid, 1 invalid, 3 disputed, 4 unverifiable, for a tree the gravest; 2 is a mistake on the command line."""
    from underpar.core.errors import ConfigError
    from underpar.referee.audit.find import is_record_folder
    from underpar.referee.audit.track import track_named

    track = track_named(args.track) if args.track else None
    kind, verb, options = "a file", _script, {"source"}
    if args.target.is_dir():
        kind, verb, options = "no single record folder", _tree, {"track", "page", "jobs"}
        if is_record_folder(args.target):
            kind, verb, options = "one record folder", _folder, {"track", "against", "all"}
    for name in sorted({"track", "against", "all", "page", "jobs", "source"} - options):
        if getattr(args, name):
            raise ConfigError(f"--{name} does not apply: {args.target} is {kind}; leave it out")
    return verb(args, track)


def _script(args: argparse.Namespace, track: Track | None) -> int:
    from underpar.cli.options import print_json
    from underpar.referee.audit.files import printable
    from underpar.referee.audit.script import audit_script, render_script

    report = audit_script(args.target)
    if args.source:
        print("\n".join(printable(line.replace("\t", "    ")) for line in report.source.text.split("\n")))
    elif args.json:
        print_json(report.to_json())
    else:
        print(render_script(report))
    return report.verdict.exit_code


def _folder(args: argparse.Namespace, track: Track | None) -> int:
    from underpar.cli.options import print_json
    from underpar.referee.audit.folder import audit_folder, compare
    from underpar.referee.audit.render import render

    report = audit_folder(args.target, track=track)
    if args.against:
        report = compare(report, audit_folder(args.against, track=track))
    if args.json:
        print_json(report.to_json())
    else:
        print(render(report, everything=args.all))
    return report.verdict.exit_code


def _tree(args: argparse.Namespace, track: Track | None) -> int:
    from underpar.cli.options import print_json
    from underpar.referee.audit.page import write_page
    from underpar.referee.audit.table import render_board
    from underpar.referee.audit.tree import audit_tree

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    board = audit_tree(args.target, track=track, jobs=args.jobs or cores, on_progress=_show)
    if args.json:
        print_json(board.to_json())
    else:
        print(render_board(board))
    if args.page:
        print(f"page: {write_page(board, args.page)}", file=sys.stderr)
    return board.exit_code


def _show(done: int, all: int) -> None:
    if sys.stderr.isatty():
        print(f"\raudit: {done} of {all} folders", end="\n" if done == all else "", file=sys.stderr, flush=True)
