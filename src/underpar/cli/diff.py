"""`underpar diff A B`."""

import argparse

from underpar.cli.options import add_json, print_json

HELP = "print the computed differences between two recipes (one name: against its parent)"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", help="a recipe")
    parser.add_argument("b", nargs="?", help="another; left out, A is compared with its parent")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.errors import ConfigError
    from underpar.recipes import registry

    old, new = args.a, args.b
    if new is None:
        parent = registry.find(args.a).parent
        if parent is None:
            raise ConfigError(f"'{args.a}' has no parent; name a second recipe")
        old, new = parent.name, args.a
    changes = registry.changes(old, new)
    if args.json:
        print_json([{"path": c.path, "old": c.old, "new": c.new} for c in changes])
    else:
        print(f"{old} -> {new}: {len(changes)} change(s)")
        print("\n".join(f"  {change}" for change in changes))
    return 0
