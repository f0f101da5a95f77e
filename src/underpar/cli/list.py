"""`underpar list`."""

import argparse

from underpar.cli.options import add_json, print_json

HELP = "list the recipes and tracks, one line each"


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.recipes import registry

    if args.json:
        recipes = [
            {"name": e.name, "parent": e.parent.name if e.parent else None, "summary": e.summary}
            for e in registry.recipes.values()
        ]
        tracks = [{"name": e.name, "summary": e.summary} for e in registry.tracks.values()]
        print_json({"recipes": recipes, "tracks": tracks})
        return 0
    width = max(len(name) for name in (*registry.recipes, *registry.tracks))
    print("recipes")
    for entry in registry.recipes.values():
        print(f"  {entry.name:{width}}  {entry.summary}")
    print("tracks")
    for entry in registry.tracks.values():
        print(f"  {entry.name:{width}}  {entry.summary}")
    return 0
