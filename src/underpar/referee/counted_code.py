"""The counted source, examined without running it: does the archive hold everything that loading and scoring imports?"""

from __future__ import annotations

import ast
import io
import lzma
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from underpar.compress.source import pack_source, source_closure
from underpar.core.errors import ArtifactError

ENTRIES = (
    "underpar.evaluate.load",
    "underpar.evaluate.score",
    "underpar.evaluate.scorers",
    "underpar.data.tokenizers",
)
"""Loading, scoring and tokenising: where running a packed model begins."""
MAX_ARCHIVE_BYTES = 64 << 20
"""Coded and decoded: far above any source, far below what would hurt."""
MAX_MEMBERS = 10_000


@dataclass(frozen=True)
class CountedCode:
    """What the code costs, and whether it is complete."""

    code_bytes: int
    own_code_bytes: int
    """The same closure, packed from the installation that verifies."""
    shipped: bool
    """False: no archive was handed in, and the installation's own packing is counted."""
    modules: int
    missing: tuple[str, ...]
    """Modules that are imported somewhere in the closure and absent from the archive."""
    same_as_installed: bool
    """The archive is byte for byte what this installation would pack."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def installed_code() -> CountedCode:
    """The packed source of this installation."""
    modules = source_closure(ENTRIES)
    size = len(pack_source(modules))
    return CountedCode(size, size, False, len(modules), (), True)


def examine_code(path: Path) -> CountedCode:
    """Measure and read an archive made by `pack_source`. Nothing in it is executed or written to disk.

    Raises ArtifactError when it is unreadable, too large, or no .tar.xz.
    """
    data = _read(path)
    own = pack_source(source_closure(ENTRIES))
    sources = _sources(path, data)
    reached, missing = _closure(path, sources)
    return CountedCode(len(data), len(own), True, len(reached), tuple(missing), data == own)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ARCHIVE_BYTES + 1)
    except OSError as problem:
        raise ArtifactError(f"cannot read {path}: {problem.strerror}") from None
    if len(data) > MAX_ARCHIVE_BYTES:
        raise ArtifactError(
            f"{path.name} is over {MAX_ARCHIVE_BYTES:,} bytes, which no source needs; count the code alone"
        )
    return data


def _sources(path: Path, data: bytes) -> dict[str, str]:
    """Module name -> source of every Python file in the archive."""
    found: dict[str, str] = {}
    try:
        decoder = lzma.LZMADecompressor(memlimit=1 << 30)
        plain = decoder.decompress(data, max_length=MAX_ARCHIVE_BYTES)
        if not decoder.eof:
            raise ArtifactError(f"{path.name} is cut off, or decodes to over {MAX_ARCHIVE_BYTES:,} bytes; pack again")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for index, member in enumerate(archive):
                if index >= MAX_MEMBERS:
                    raise ArtifactError(f"{path.name} has over {MAX_MEMBERS:,} members; count the code alone")
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None and member.name.endswith(".py"):
                    found[_module_name(member.name)] = file.read().decode("utf-8")
    except (lzma.LZMAError, tarfile.TarError, EOFError, UnicodeDecodeError) as problem:
        raise ArtifactError(f"{path.name} is not a readable .tar.xz of source: {problem}; pack again") from None
    return found


def _module_name(member: str) -> str:
    return member.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def _closure(path: Path, sources: dict[str, str]) -> tuple[set[str], list[str]]:
    """Modules that the entries reach inside the archive, and those that they need and it lacks."""
    package = ENTRIES[0].partition(".")[0]
    waiting = list(ENTRIES)
    reached: set[str] = set()
    missing: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in reached or name in missing:
            continue
        if name not in sources:
            missing.add(name)
            continue
        reached.add(name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        try:
            needed = list(_imports(ast.parse(sources[name]), sources))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
            said = str(problem) or "nested too deep"
            raise ArtifactError(f"{path.name}: module {name} is not Python: {said}; pack again") from None
        waiting += [n for n in needed if n.partition(".")[0] == package]
    return reached, sorted(missing)


def _imports(tree: ast.AST, sources: dict[str, str]) -> Iterator[str]:
    """Absolute imports that can execute; what `if TYPE_CHECKING:` guards cannot."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        for branch in tree.orelse:
            yield from _imports(branch, sources)
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom) and tree.module and not tree.level:
        yield tree.module
        inner = (f"{tree.module}.{alias.name}" for alias in tree.names)
        yield from (name for name in inner if name in sources)
    for child in ast.iter_child_nodes(tree):
        yield from _imports(child, sources)
