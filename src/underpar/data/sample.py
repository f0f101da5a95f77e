"""The bundled sample: 2.3 MB of compressed real text, so that the first run needs no network and no download.

About 8.0 MB of training text and 0.26 MB of validation text from 22 sources in the public domain or under CC0, MIT or
Apache-2.0. `sample/SOURCES.md` lists them; `scripts/make_sample.py` rebuilds them.
"""

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from underpar.core.errors import DataError, suggest

SAMPLE_DIR = Path(__file__).parent / "sample"

Split = Literal["train", "val"]


def sample_file(split: Split) -> Path:
    """The bundled `.jsonl.xz` of one split. Raises DataError when the installation lacks it."""
    if split not in ("train", "val"):
        raise DataError(f"the sample has no split '{split}'; {suggest(split, ('train', 'val'))}")
    path = SAMPLE_DIR / f"{split}.jsonl.xz"
    if not path.is_file():
        raise DataError(f"{path} is missing from this installation; reinstall underpar or run scripts/make_sample.py")
    return path


def sample_documents(split: Split) -> Iterator[dict[str, str]]:
    """The documents of one split in their fixed order, as {"id", "source", "license", "text"}; 1,784 train, 76 val."""
    with lzma.open(sample_file(split), "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
