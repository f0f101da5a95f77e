"""`underpar flatten RECIPE`."""

import argparse
from pathlib import Path

from underpar.cli.options import add_json, add_recipe, print_json, resolve

HELP = "write a recipe as one self-contained script that trains, packs and scores without underpar"


def configure(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--out", type=Path, default=Path("train_gpt.py"), help="the script (default: train_gpt.py)")
    parser.add_argument("--readable", action="store_true", help="keep names and line breaks, and do not pack")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.errors import ConfigError
    from underpar.core.units import format_bytes
    from underpar.lab.flat import flat_script

    if args.out.is_dir():  # a mistake should show before the work, not after
        raise ConfigError(f"--out {args.out} is a folder; name the script in it, such as {args.out / 'train_gpt.py'}")
    resolved = resolve(args)
    script = flat_script(resolved.config, resolved.name, readable=args.readable)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(script.data)
    if args.json:
        print_json({
            "recipe": resolved.name, "script": str(args.out), "bytes": len(script.data), "characters": len(script.source),
            "modules": script.modules, "definitions": script.definitions,
        })  # fmt: skip
    else:
        print(
            f"{args.out}: {format_bytes(len(script.data))}; {len(script.source):,} characters, {script.definitions} "
            f"definitions of {script.modules} modules"
        )
    return 0
