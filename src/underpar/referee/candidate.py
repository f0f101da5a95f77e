"""What is handed in when a program of somebody else's is judged: how to start it, its held-out shard, and what is claimed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from underpar.core.errors import ConfigError, DataError
from underpar.core.units import BITS_PER_NAT
from underpar.data.shards import open_shard, shard_files
from underpar.data.tokenizer_base import MAX_VOCAB_SIZE, Tokenizer
from underpar.referee.adapters.command import SUBMISSION, CommandLine
from underpar.referee.adapters.python import Target
from underpar.referee.case import ByteLimit
from underpar.referee.claim import Claim
from underpar.referee.jail.run import JailLimits
from underpar.referee.submission import identity

MAX_SUBMISSION_BYTES = 1 << 30
UNITS = {"nats": 1.0, "bits": 1.0 / BITS_PER_NAT}
"""Name of the unit of a charge -> nats in it."""


@dataclass(frozen=True)
class Candidate:
    """One program under examination."""

    start: CommandLine | Target
    val: tuple[Path, ...]
    """Shards of the held-out tokens, in order."""
    folder: Path | None = None
    """The submission's own files; copied where a command may write to them."""
    vocab_size: int | None = None
    """None takes the tokenizer's, else the largest id of the shard plus one."""
    bos_id: int | None = None
    """None takes the tokenizer's, else the first token of the shard."""
    tokenizer: Path | None = None
    text: Path | None = None
    """The raw held-out documents."""
    train: tuple[Path, ...] = ()
    """Training shards, for the comparison with the held-out ones; the program never sees them."""
    unseen: Path | None = None
    """A shard of other text of the same kind."""
    claim: Claim = field(default_factory=Claim)
    limit: ByteLimit = field(default_factory=ByteLimit)
    unit: str = "nats"
    limits: JailLimits = field(default_factory=JailLimits)
    limit_seconds: float | None = None
    """Of scoring the whole text."""
    devices: tuple[str, ...] = ()
    read_only: tuple[Path, ...] = ()
    """More of the machine that the program may read: an interpreter, libraries."""
    command: str = ""
    """What repeats the verdict."""

    def __post_init__(self) -> None:
        for what, path in (("text", self.text), ("tokenizer", self.tokenizer), ("unseen shard", self.unseen)):
            if path is not None and not path.exists():
                raise DataError(f"there is no {what} at {path}; name an existing file")
        if self.unit not in UNITS:
            raise ConfigError(f"unit = '{self.unit}' is unknown; valid: nats, bits")
        if self.folder is not None:
            check_folder(self.folder)

    def tokens(self) -> np.ndarray:
        """The held-out stream, uint16 (N,). Raises DataError for what is no shard, or is too short."""
        found = np.concatenate([np.asarray(open_shard(path)) for path in self.val])
        if len(found) < 16:
            raise DataError(f"{self.val[0]} holds {len(found)} tokens; a predictor is judged on 16 at least")
        return found

    def alphabet(self, tokens: np.ndarray, tokenizer: Tokenizer | None) -> tuple[int, int | None]:
        """Size of the vocabulary, and BOS; the latter None where the first token does not come again."""
        largest = int(tokens.max()) + 1
        size = self.vocab_size or (tokenizer.vocab_size if tokenizer else largest)
        if not largest <= size <= MAX_VOCAB_SIZE:
            raise ConfigError(
                f"vocab_size = {size:,} does not hold the shard's ids (up to {largest - 1:,}); give --vocab-size"
            )
        bos = self.bos_id if self.bos_id is not None else tokenizer.bos_id if tokenizer else int(tokens[0])
        return size, bos if (tokens == bos).any() else None

    def submission_files(self) -> dict[str, Path]:
        """Name within the submission -> file."""
        if self.folder is not None:
            return {str(path.relative_to(self.folder)): path for path in files_of(self.folder)}
        if isinstance(self.start, Target) and self.start.file is not None:
            return {self.start.file.name: self.start.file}
        return {}

    def inputs(self) -> dict[str, Path]:
        """What the jail holds: the submission, and for a Python object the program that serves it."""
        if isinstance(self.start, Target):
            return self.start.inputs()
        return {} if self.folder is None else {SUBMISSION: self.folder}

    def describe(self) -> dict[str, Any]:
        """sha256 and bytes of every file, as plain JSON data."""
        named = {f"val {path.name}": path for path in self.val}
        named |= {f"submission {name}": path for name, path in self.submission_files().items()}
        for name, path in (("text", self.text), ("unseen", self.unseen)):
            named |= {name: path} if path is not None else {}
        if self.tokenizer is not None and self.tokenizer.is_file():
            named["tokenizer"] = self.tokenizer
        return {"files": {name: identity(path) for name, path in named.items()}, "command": self.command}


def val_shards(path: Path) -> tuple[Path, ...]:
    """A shard, or the validation shards of a folder. Raises DataError where there is none."""
    found = tuple(shard_files(path, "val")) if path.is_dir() else (path,) if path.is_file() else ()
    if not found:
        raise DataError(f"there is no validation shard at {path}; name a .bin file or a folder of them")
    return found


def train_shards(path: Path) -> tuple[Path, ...]:
    """A shard, or the training shards of a folder. Raises DataError where there is none."""
    found = tuple(shard_files(path, "train")) if path.is_dir() else (path,) if path.is_file() else ()
    if not found:
        raise DataError(f"there are no training shards at {path}; name a .bin file or a folder of them")
    return found


def files_of(folder: Path) -> list[Path]:
    """The regular files under a folder, compiled Python left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if "__pycache__" not in path.parts)


def check_folder(folder: Path) -> None:
    """Refuse a submission's folder that is none, or that holds more than a submission can."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; --dir names the folder with the submission's files")
    total = 0
    for path in folder.rglob("*"):
        total += path.stat().st_size if path.is_file() and not path.is_symlink() else 0
        if total > MAX_SUBMISSION_BYTES:
            raise DataError(
                f"{folder} holds more than {MAX_SUBMISSION_BYTES:,} bytes; name the folder of the submission alone"
            )
