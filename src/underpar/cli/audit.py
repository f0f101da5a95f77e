"""`underpar audit FOLDER`: do the files of a record hold together?"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "read a record folder of either game and say whether its figures hold together"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", type=Path, help="a record folder; nothing in it is executed")
    parser.add_argument(
        "--track",
        help="golf-record, golf-non-record, speedrun-small, speedrun-medium or speedrun-steps (default: what the folder says)",
    )
    parser.add_argument("--against", type=Path, help="the earlier record to test this one against")
    parser.add_argument("--all", action="store_true", help="spell out what held, too")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """0 valid, 1 invalid, 3 disputed, 4 unverifiable; 2 is a mistake on the command line."""
    import json

    from underpar.referee.audit.folder import audit_folder, compare
    from underpar.referee.audit.render import render
    from underpar.referee.audit.track import track_named

    track = track_named(args.track) if args.track else None
    report = audit_folder(args.target, track=track)
    if args.against:
        report = compare(report, audit_folder(args.against, track=track))
    print(json.dumps(report.to_json(), indent=1) if args.json else render(report, everything=args.all))
    return report.verdict.exit_code
