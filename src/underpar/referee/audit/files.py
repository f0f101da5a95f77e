"""What lies in a folder that somebody else made: listed without following links, read only up to a limit.

Nothing that a folder says about itself decides which path is opened: names come from the directory alone.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from underpar.core.errors import RecordError

MAX_FILES = 5_000
MAX_DEPTH = 8
MAX_TEXT_BYTES = 4 << 20
"""Of a README, a submission.json, a script: far above any real one."""


@dataclass(frozen=True)
class Item:
    """One plain file. `name` is relative to the folder, with '/'."""

    path: Path
    name: str
    size: int

    @property
    def base(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def group(self) -> str:
        """The subfolder it lies in, '' for the folder itself."""
        return self.name.rpartition("/")[0]

    @property
    def suffix(self) -> str:
        return Path(self.base).suffix.lower()


@dataclass(frozen=True)
class Oddity:
    """Something in a folder that is no plain file, and was therefore not opened."""

    name: str
    what: str


@dataclass(frozen=True)
class Inventory:
    """The plain files of a folder in the order of their names, and what else was met."""

    root: Path
    items: tuple[Item, ...]
    oddities: tuple[Oddity, ...]

    def named(self, *bases: str) -> list[Item]:
        """Files with one of these names (lower case), the outermost first."""
        found = [item for item in self.items if item.base.lower() in bases]
        return sorted(found, key=lambda item: (item.name.count("/"), item.name))

    def with_suffix(self, *suffixes: str) -> list[Item]:
        return [item for item in self.items if item.suffix in suffixes]


def printable(name: str) -> str:
    """A file name that cannot move the cursor or break a line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def take_inventory(root: Path) -> Inventory:
    """List a folder to a depth of 8 and 5,000 files; links are reported, never followed.

    Raises RecordError when `root` is no folder or cannot be listed.
    """
    if not root.is_dir():
        raise RecordError(f"{root}: not a folder; point at a record folder, a tree of them, or a script")
    items: list[Item] = []
    odd: list[Oddity] = []
    waiting = [(root, "", 0)]
    while waiting:
        folder, prefix, depth = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as problem:
            if folder == root:
                raise RecordError(f"cannot list {root}: {problem.strerror}; check its permissions") from None
            odd.append(Oddity(printable(prefix.rstrip("/")), f"cannot be listed ({problem.strerror})"))
            continue
        for entry in entries:
            name = printable(prefix + entry.name)
            if len(items) + len(odd) >= MAX_FILES:
                odd.append(Oddity(name, f"left out with all that follows: over {MAX_FILES:,} entries"))
                return Inventory(root, tuple(items), tuple(odd))
            _sort_in(entry, name, depth, items, odd, waiting)
    return Inventory(root, tuple(sorted(items, key=lambda i: i.name)), tuple(odd))


def _sort_in(
    entry: os.DirEntry[str],
    name: str,
    depth: int,
    items: list[Item],
    odd: list[Oddity],
    waiting: list[tuple[Path, str, int]],
) -> None:
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError as problem:
        odd.append(Oddity(name, f"cannot be looked at ({problem.strerror})"))
        return
    if stat.S_ISDIR(info.st_mode):
        if entry.name in (".git", "__pycache__", ".ipynb_checkpoints"):
            return
        if depth + 1 > MAX_DEPTH:
            odd.append(Oddity(name, f"nested deeper than {MAX_DEPTH} folders"))
            return
        waiting.append((Path(entry.path), f"{name}/", depth + 1))
    elif stat.S_ISREG(info.st_mode):
        items.append(Item(Path(entry.path), name, info.st_size))
    elif stat.S_ISLNK(info.st_mode):
        target = printable(os.readlink(entry.path))
        odd.append(Oddity(name, f"symbolic link to {target}"))
    else:
        odd.append(Oddity(name, f"{_kind(info.st_mode)}, not a plain file"))


def _kind(mode: int) -> str:
    for test, word in (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if test(mode):
            return word
    return "of unknown kind"


def open_plain(path: Path) -> int:
    """A file descriptor of a plain file: never follows a link, never waits for a pipe.

    Raises RecordError when the file is gone, unreadable or no plain file any more.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise RecordError(f"cannot read {printable(path.name)}: {problem.strerror}; check the file") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RecordError(f"{printable(path.name)} is not a plain file; replace it by a copy")
    return handle


def read_limited(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The whole of a plain file of at most `limit` bytes. Raises RecordError above that, or when it is unreadable."""
    with os.fdopen(open_plain(path), "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise RecordError(
            f"{printable(path.name)} is over {limit:,} bytes, which no file of this kind needs; shorten it"
        )
    return data
