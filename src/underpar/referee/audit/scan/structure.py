"""Look-backs across documents and settings that nobody reads: V14, V26."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from underpar.referee.audit.scan.reading import Function, Reading, Suspicion, any_match, called, names, number

_DOCUMENTS = re.compile(r"bos|doc|boundar|cu_seq|segment|is_start|seqlens", re.IGNORECASE)
_SETTINGS = re.compile(r"hyper|config|args|settings", re.IGNORECASE)


def scan_structure(reading: Reading) -> Iterator[Suspicion]:
    """Mixing of neighbours, and dead settings."""
    for function in reading.functions:
        yield from _look_back(reading, function)
    yield from _dead_settings(reading)


def _look_back(reading: Reading, function: Function) -> Iterator[Suspicion]:
    """cat([x[:, :1], x[:, 1:] + g * x[:, :-1]]) in a function that knows nothing of documents."""
    body = reading.body(function)
    shifted = [n for n in body if called(n) in ("cat", "concat") and _shifts(n)]
    if not shifted:
        return
    known = {n.id for n in body if isinstance(n, ast.Name)} | {n.attr for n in body if isinstance(n, ast.Attribute)}
    if not any_match(_DOCUMENTS, known):
        yield Suspicion(
            "V14", shifted[0].lineno,  # type: ignore[attr-defined]
            "the position before is mixed in without a mask at the start of documents",
        )  # fmt: skip


def _shifts(node: ast.AST) -> bool:
    """Whether a subtree holds x[..., :-1] of something that is floating point by name: no token ids."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Subscript) and any(_all_but_last(part) for part in _slices(inner.slice)):
            return not any(re.search(r"ids|tok|input_|target|idx", name, re.IGNORECASE) for name in names(inner.value))
    return False


def _slices(node: ast.AST) -> list[ast.AST]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _all_but_last(node: ast.AST) -> bool:
    return isinstance(node, ast.Slice) and node.lower is None and number(node.upper) == -1


def _dead_settings(reading: Reading) -> Iterator[Suspicion]:
    """Fields of a class of settings that are assigned and never read."""
    fields: dict[str, int] = {}
    for node in reading.source.of(ast.ClassDef):
        if _SETTINGS.search(node.name):
            for statement in node.body:
                targets = statement.targets if isinstance(statement, ast.Assign) else []
                targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
                fields |= {
                    t.id: statement.lineno for t in targets if isinstance(t, ast.Name) and not t.id.startswith("_")
                }
    if not fields:
        return
    read = {n.attr for n in reading.source.of(ast.Attribute) if isinstance(n.ctx, ast.Load)}
    read |= {n.id for n in reading.source.of(ast.Name) if isinstance(n.ctx, ast.Load)}
    read |= {n.value for n in reading.source.of(ast.Constant) if isinstance(n.value, str)}
    dead = {name: line for name, line in fields.items() if name not in read}
    if dead:
        first = min(dead.values())
        shown = ", ".join(sorted(dead)[:6]) + (f" and {len(dead) - 6} more" if len(dead) > 6 else "")
        yield Suspicion("V26", first, f"set and never read: {shown}")
