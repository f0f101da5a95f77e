"""Token shards in the field's binary format, so that files pass both ways between us and the published tools.

    offset 0     int32 LE x 256   magic 20240520, version 1, number of tokens N, then zeros
    offset 1024  uint16 LE x N    token ids

A byte sidecar has the same format and one entry per token: the UTF-8 bytes of the original text that the token stands
for (0 at a document's BOS). Files are consumed in sorted name order; all but the last of a split hold `SHARD_TOKENS`.
Source: the shard format of llm.c and modded-nanogpt, as the 16 MB game uses it.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import numpy as np

from underpar.core.errors import DataError

MAGIC = 20240520
VERSION = 1
HEADER_INTS = 256
HEADER_BYTES = 4 * HEADER_INTS
SHARD_TOKENS = 100_000_000
MAX_TOKENS = 2**31 - 1

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

_TOKEN = np.dtype("<u2")
_HEADER = np.dtype("<i4")
_NAME = re.compile(r"_(train|val)_\d+\.bin")
_SIDECAR = re.compile(r"_val_bytes_\d+\.bin")


def shard_name(split: str, index: int) -> str:
    """'fineweb_train_000000.bin': the name that the published trainers look for, whatever the text."""
    return f"fineweb_{split}_{index:06d}.bin"


def sidecar_name(index: int) -> str:
    """'fineweb_val_bytes_000000.bin': the byte counts of the validation shard of the same index."""
    return f"fineweb_val_bytes_{index:06d}.bin"


def shard_files(folder: str | Path, split: str) -> list[Path]:
    """The token shards of a split in reading order, never a sidecar; empty when there are none."""
    return sorted(p for p in Path(folder).glob(f"*_{split}_*.bin") if (m := _NAME.search(p.name)) and m[1] == split)


def sidecar_files(folder: str | Path) -> list[Path]:
    """The byte sidecars of the validation split in reading order; empty when there are none."""
    return sorted(p for p in Path(folder).glob("*_val_bytes_*.bin") if _SIDECAR.search(p.name))


def shard_header(count: int) -> bytes:
    """The 1,024 header bytes of a shard of `count` tokens."""
    header = np.zeros(HEADER_INTS, dtype=_HEADER)
    header[:3] = MAGIC, VERSION, count
    return header.tobytes()


def read_count(path: str | Path) -> int:
    """The number of tokens in a shard, after checking magic, version, count and the exact file size.

    Raises DataError saying which of them is wrong. Cost: one read of 1,024 bytes.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as problem:
        raise DataError(f"cannot read shard {path}: {problem.strerror}") from None
    if len(raw) < HEADER_BYTES:
        raise DataError(f"{path} is {size} bytes, shorter than a shard's header of {HEADER_BYTES}; make it again")
    magic, version, count = (int(n) for n in np.frombuffer(raw, dtype=_HEADER, count=3))
    if magic != MAGIC:
        raise DataError(f"{path} is not a token shard: magic {magic}, expected {MAGIC}")
    if version != VERSION:
        raise DataError(f"{path} is a shard of version {version}; only version {VERSION} can be read")
    if count < 1:
        raise DataError(f"{path} claims {count} tokens; a shard holds 1 to {MAX_TOKENS}")
    expected = HEADER_BYTES + _TOKEN.itemsize * count
    if size != expected:
        raise DataError(f"{path} is {size} bytes, but its header says {count} tokens = {expected} bytes; make it again")
    return count


def open_shard(path: str | Path) -> np.memmap:
    """The tokens of a shard, (N,) uint16, mapped read-only. Raises DataError as `read_count` does."""
    count = read_count(path)
    return np.memmap(path, dtype=_TOKEN, mode="r", offset=HEADER_BYTES, shape=(count,))


def write_shard(path: str | Path, tokens: np.ndarray) -> None:
    """Write `tokens`, (N,) uint16 with N >= 1, as one shard. The file appears whole or not at all.

    Raises DataError on another dtype or shape: a silent cast would wrap ids above 65,535.
    """
    path = Path(path)
    values = _checked(tokens, path)
    if not 1 <= len(values) <= MAX_TOKENS:
        raise DataError(f"{path}: {len(values)} tokens; a shard holds 1 to {MAX_TOKENS}")
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(shard_header(len(values)))
            file.write(values.data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as problem:
        partial.unlink(missing_ok=True)
        raise DataError(f"cannot write shard {path}: {problem.strerror}") from None


def _checked(tokens: np.ndarray, where: object) -> np.ndarray:
    if tokens.dtype != np.uint16 or tokens.ndim != 1:
        raise DataError(f"{where}: expected a flat uint16 array, got {tokens.dtype} of shape {tokens.shape}")
    return np.ascontiguousarray(tokens, dtype=_TOKEN)


class ShardWriter:
    """Writes one stream of uint16 values as consecutive shards, in memory bounded by the largest array appended.

    A shard's header is written last: until then its magic is zero, and no reader takes it for whole.
    """

    def __init__(self, folder: str | Path, name: str, shard_tokens: int = SHARD_TOKENS) -> None:
        """`name` is a format with one field for the index, such as 'fineweb_train_{:06d}.bin'."""
        if not 1 <= shard_tokens <= MAX_TOKENS:
            raise DataError(f"shard_tokens = {shard_tokens} is out of range: a shard holds 1 to {MAX_TOKENS}")
        self.folder, self.name, self.shard_tokens = Path(folder), name, shard_tokens
        self.paths: list[Path] = []
        self.total = 0
        self._file: BinaryIO | None = None
        self._filled = 0

    def append(self, values: np.ndarray) -> None:
        """Add (N,) uint16 values, starting a new shard wherever one is full. Raises DataError on another dtype."""
        rest = _checked(values, self.folder / self.name)
        while len(rest):
            if self._file is None:
                self._file = self._open()
            part = rest[: self.shard_tokens - self._filled]
            self._file.write(part.data)
            self._filled += len(part)
            self.total += len(part)
            rest = rest[len(part) :]
            if self._filled == self.shard_tokens:
                self._finish()

    def close(self) -> None:
        """Complete the last shard."""
        if self._file is not None:
            self._finish()

    def _open(self) -> BinaryIO:
        path = self.folder / self.name.format(len(self.paths))
        file = path.open("wb")
        file.write(bytes(HEADER_BYTES))
        self.paths.append(path)
        self._filled = 0
        return file

    def _finish(self) -> None:
        file, self._file = self._file, None
        assert file is not None
        with file:
            file.seek(0)
            file.write(shard_header(self._filled))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:  # leave the shard without a header: nobody will read it
            with suppress(OSError):  # a full disk has been reported by whatever filled it
                self._file.close()
            self._file = None
