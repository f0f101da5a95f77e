"""Record folders below a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from underpar.core.errors import RecordError

MAX_DEPTH = 6
MAX_FOLDERS = 20_000

_SUBMISSION = re.compile(r"submission([_-][\w-]+)?\.json")
_DATED = re.compile(r"(20\d\d-\d\d-\d\d|\d{6}|\d{8})_\w")
_OTHER_TEXT = ("requirements", "license", "readme")


@dataclass(frozen=True)
class _Look:
    files: tuple[str, ...]
    folders: tuple[str, ...]

    @property
    def logs(self) -> list[str]:
        return [n for n in self.files if n.endswith((".log", ".txt")) and not n.startswith(_OTHER_TEXT)]

    @property
    def has_submission(self) -> bool:
        return any(_SUBMISSION.fullmatch(name) for name in self.files)

    @property
    def has_readme(self) -> bool:
        return any(name.startswith("readme") for name in self.files)

    @property
    def has_script(self) -> bool:
        return any(name.endswith(".py") for name in self.files)


def is_record_folder(folder: Path) -> bool:
    """Whether a folder looks like one record: a submission, logs with a README or script, or a dated name with any of them.

    Raises RecordError when it cannot be listed.
    """
    look = _look(folder)
    if look.has_submission:
        return True
    if look.logs:
        return look.has_readme or look.has_script or len(look.logs) > 1 or bool(_DATED.match(folder.name))
    if _DATED.match(folder.name) and (look.has_readme or look.has_script):
        return True
    return look.has_readme and any(_is_arm(folder / name) for name in look.folders)


def _is_arm(folder: Path) -> bool:
    """A subfolder of runs of a record, not a record of its own."""
    look = _look(folder)
    return bool(look.logs) and not look.has_submission and not look.has_readme and not _DATED.match(folder.name)


def find_records(tree: Path) -> list[Path]:
    """Every record folder in a tree, in the order of their paths; links are not followed, records are not searched.

    Raises RecordError when `tree` cannot be listed or holds more than 20,000 folders.
    """
    return sorted(_walk(tree))


def _walk(tree: Path) -> Iterator[Path]:
    waiting, seen = [(tree, 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        seen += 1
        if seen > MAX_FOLDERS:
            raise RecordError(f"{tree} holds over {MAX_FOLDERS:,} folders; name one of its parts")
        try:
            if is_record_folder(folder):
                yield folder
                continue
            names = _look(folder).folders
        except RecordError:
            if folder == tree:
                raise
            continue
        if depth < MAX_DEPTH:
            waiting += [(folder / name, depth + 1) for name in names]


def _look(folder: Path) -> _Look:
    """Names of plain files (lower case) and of folders; hidden folders are left out."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith(".") and entry.name != "__pycache__":
                        folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.name.lower())
    except OSError as problem:
        raise RecordError(f"cannot list {folder}: {problem.strerror}; check the path and its permissions") from None
    return _Look(tuple(files), tuple(sorted(folders)))
