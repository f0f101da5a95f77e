"""A script of a folder: its bytes, its unpacked layers, its syntax tree. Nothing of it is ever executed."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from underpar.core.errors import RecordError
from underpar.referee.audit.files import Item, read_limited
from underpar.referee.audit.syntax import NoPython, all_nodes, parse
from underpar.referee.audit.unpack import Unpackable, unpack_layers


@dataclass(frozen=True)
class Source:
    """One script. `text` is the innermost layer: what would run."""

    item: Item
    shipped: bytes
    text: str
    layers: int = 0
    """How often it was packed."""
    tree: ast.Module | None = field(default=None, repr=False, compare=False)
    """None for another language, or when it does not parse; `problem` says why."""
    problem: str = ""

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree, parents before children; [] without a tree."""
        return all_nodes(self.tree) if self.tree else []

    @cached_property
    def by_kind(self) -> dict[type, list[ast.AST]]:
        """Class of node -> its nodes, parents before children."""
        found: dict[type, list[ast.AST]] = {}
        for node in self.nodes:
            found.setdefault(node.__class__, []).append(node)
        return found

    def of(self, *kinds: type[ast.AST]) -> Iterator[Any]:
        """Every node of exactly these classes, one class after another."""
        for kind in kinds:
            yield from self.by_kind.get(kind, [])

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.shipped).hexdigest()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def read_source(item: Item) -> Source:
    """Read a script; what cannot be read or parsed is still a Source, with the reason in `problem`."""
    try:
        shipped = read_limited(item.path)
    except RecordError as problem:
        return Source(item, b"", "", problem=str(problem))
    return source_from_bytes(item, shipped)


def decode_source(shipped: bytes) -> str:
    """A script as Python reads it: UTF-8, or Latin-1 where a comment in its first two lines says so (PEP 263).

    Raises UnicodeDecodeError for anything else.
    """
    try:
        return shipped.decode("utf-8-sig")
    except UnicodeDecodeError:
        head = b"\n".join(shipped.split(b"\n", 2)[:2])
        named = re.search(rb"^[ \t\f]*#.*?coding[:=][ \t]*(l1|latin[-_]?1|iso[-_]8859[-_]1)\b", head, re.M | re.I)
        if not named:
            raise
        return shipped.decode("latin-1")


def source_from_bytes(item: Item, shipped: bytes) -> Source:
    """Decode, parse and unpack."""
    try:
        text = decode_source(shipped)
    except UnicodeDecodeError as problem:
        return Source(item, shipped, "", problem=f"not UTF-8 (byte {problem.start}), and no first line says Latin-1")
    if item.path.suffix.lower() != ".py":
        return Source(item, shipped, text)
    try:
        tree = parse(text)
        layers = unpack_layers(text, tree)
        inner = layers[-1] if layers else text
        return Source(item, shipped, inner, len(layers), parse(inner) if layers else tree)
    except Unpackable as problem:
        return Source(item, shipped, text, problem=f"packed, and not opened: {problem}")
    except NoPython as problem:
        return Source(item, shipped, text, problem=f"not Python that can be parsed ({problem})")
