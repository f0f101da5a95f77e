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
    prose = {id(node.value) for node in source.of(ast.Expr)}
    for node in source.of(ast.Constant):
        if isinstance(node.value, str) and id(node) not in prose and len(node.value) < 200:
            yield node.value.rpartition("/")[2]
    for imported in source.of(ast.Import):
        yield from (f"{alias.name.partition('.')[0]}.py" for alias in imported.names)
    for imported_from in source.of(ast.ImportFrom):
        if imported_from.module:
            yield f"{imported_from.module.partition('.')[0]}.py"
