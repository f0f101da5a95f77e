"""Which other files of the folder a script runs, imports or compiles."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from underpar.referee.audit.files import Inventory, Item
from underpar.referee.audit.source import Source

_CODE = (".py", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".so", ".sh", ".pyc")


def executed_siblings(source: Source, sources: Sequence[Source], inventory: Inventory) -> list[Item]:
    """Files beside `source` that it reaches, directly or through each other, in the order of their names."""
    by_name = {item.base: item for item in inventory.items if item.suffix in _CODE and item.group == source.item.group}
    trees = {s.item.base: s for s in sources if s.item.group == source.item.group}
    waiting, reached = [source], {source.item.base}
    while waiting:
        for name in _named(waiting.pop()):
            if name in by_name and name not in reached:
                reached.add(name)
                if name in trees:
                    waiting.append(trees[name])
    return [by_name[name] for name in sorted(reached - {source.item.base})]


def _named(source: Source) -> Iterator[str]:
    """File names in imports and in string constants (docstrings aside)."""
    prose: set[int] = set()
    for node in source.nodes:  # parents come before children
        kind = type(node)
        if kind is ast.Expr:
            prose.add(id(node.value))  # type: ignore[attr-defined]
        elif kind is ast.Constant:
            value = node.value  # type: ignore[attr-defined]
            if isinstance(value, str) and id(node) not in prose and len(value) < 200:
                yield value.rpartition("/")[2]
        elif isinstance(node, ast.Import):
            yield from (f"{alias.name.partition('.')[0]}.py" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield f"{node.module.partition('.')[0]}.py"
