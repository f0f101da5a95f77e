"""`underpar show RECIPE`."""

import argparse

from underpar.cli.options import add_json, add_recipe, print_json, resolve

HELP = "show a recipe: what it expects, its lineage, what it changes, and every setting"


def configure(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from underpar.core.config import diff, to_dict
    from underpar.recipes import registry

    resolved = resolve(args)
    entry = registry.find(args.recipe)
    parent = entry.parent.name if entry.parent else None
    changes = diff(registry.resolve(parent).config, resolved.config) if parent else []
    if args.json:
        print_json(
            {
                "recipe": resolved.name,
                "fingerprint": resolved.fingerprint,
                "lineage": list(resolved.lineage),
                "doc": entry.doc,
                "diff": [{"path": c.path, "old": c.old, "new": c.new} for c in changes],
                "config": to_dict(resolved.config),
            }
        )
        return 0
    print(f"{resolved.name}   fingerprint {resolved.fingerprint}\n")
    print(entry.doc)
    print(f"\nlineage: {' -> '.join(resolved.lineage)}")
    if changes:
        print(f"\nchanges against {parent}:")
        print("\n".join(f"  {change}" for change in changes))
    print("\nsettings:")
    _print_tree(resolved.config, "  ")
    return 0


def _print_tree(node: object, indent: str) -> None:
    from underpar.core.config import Config, field_types, show

    for name in field_types(type(node)):  # type: ignore[arg-type]
        value = getattr(node, name)
        if isinstance(value, Config) and field_types(type(value)):
            print(f"{indent}{name}: {type(value).__name__}")
            _print_tree(value, indent + "  ")
        else:
            print(f"{indent}{name} = {show(value)}")
