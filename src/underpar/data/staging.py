"""A folder that appears whole or not at all: written beside its place under a hidden name, renamed when complete."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from underpar.core.errors import DataError

_LOCK = ".lock"


def staging_path(target: Path) -> Path:
    """'.NAME.partial' beside the target: where it is made."""
    return target.parent / f".{target.name}.partial"


def check_target(target: str | Path, *, overwrite: bool = False) -> None:
    """Raise DataError when the target exists with something in it, before any work goes into replacing it."""
    target = Path(target)
    if not overwrite and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} exists already; choose another folder, or replace it with --overwrite")


@contextmanager
def staged_folder(target: str | Path, *, overwrite: bool = False, keep_partial: bool = False) -> Iterator[Path]:
    """An empty folder to write into, which becomes `target` when the block ends without an exception.

    Args:
        overwrite: an existing target is replaced at the end, and stays as it is until then.
        keep_partial: what an interrupted block left is handed to the next one, which resumes; else it is removed.
    Raises:
        DataError: the target exists, another process is making it, or the disk does not take it.
    A process that is killed leaves the hidden folder only; the next call removes it or resumes from it.
    """
    target = Path(os.path.abspath(target))
    check_target(target, overwrite=overwrite)
    partial = staging_path(target)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = _lock(partial, target)
    except OSError as problem:
        raise DataError(f"cannot write in {target.parent}: {problem.strerror}") from None
    try:
        if not keep_partial:
            _clear(partial)
        yield partial
        _publish(partial, target)
    except BaseException as problem:
        if not keep_partial:
            shutil.rmtree(partial, ignore_errors=True)
        if isinstance(problem, OSError):  # a full disk, most often
            raise DataError(f"cannot make {target}: {problem}") from None
        raise
    finally:
        os.close(lock)


def _lock(partial: Path, target: Path) -> int:
    """An exclusive lock that ends with this process, however it ends."""
    descriptor = os.open(partial / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DataError(f"another process is making {target}; wait for it or choose another folder") from None
    return descriptor


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == _LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _publish(partial: Path, target: Path) -> None:
    """Rename, after every byte is on the disk, so that no crash can leave the name without them."""
    (partial / _LOCK).unlink()
    for path in (*partial.iterdir(), partial):
        _sync(path)
    old = target.parent / f".{target.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
