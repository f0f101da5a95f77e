"""Files that appear whole or not at all."""

import errno
import os
from pathlib import Path


def write_whole(path: Path, text: str) -> Path:
    """Write `text` as UTF-8 beside `path` and rename it over `path`, whose folder is made where it is missing.

    A reader never sees half of it, and where writing fails the old file stays. What UTF-8 cannot hold becomes "?". It is not
    forced to the disk: a power cut may lose it. Raises OSError.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        half.write_text(text, encoding="utf-8", errors="replace")
        half.replace(path)
    except OSError:
        half.unlink(missing_ok=True)
        raise
    return path
