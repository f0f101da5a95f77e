"""`underpar pack RUN`."""

import argparse
from pathlib import Path

from underpar.cli.options import add_json, print_json

HELP = "quantise and code a run's newest checkpoint into its artifact"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run folder, such as runs/quickstart/seed1337")
    parser.add_argument(
        "--no-limit", action="store_true", help="write the artifact even when it is over the recipe's budget"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.units import format_bytes
    from underpar.lab.files import RunFolder
    from underpar.lab.packing import pack_run

    info = pack_run(RunFolder(args.run_folder), enforce_budget=not args.no_limit)
    if args.json:
        print_json(info)
    else:
        print(
            f"{args.run_folder / 'artifact.upar'}: {format_bytes(info['artifact_bytes'])} "
            f"= container {info['container_bytes']:,} + code {info['code_bytes']:,}"
        )
    return 0
