"""The artifact format `.upar`: a header, a table of tensors and coded streams. This side reads; `writer` writes.

    magic (8)  sha256 of all that follows (32)  version u16  zero u16  header bytes: coded u32, decoded u32
    header: zlib of canonical JSON {"header", "tensors", "streams"}
    streams, back to back, to the end of the file

There are no offsets: a stream begins where the one before it ends, and so does a part inside its stream. Ranges
cannot overlap or leave the file, and what is left to check is that sizes add up. docs/artifact.md is the full
description.
"""

import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from underpar.compress import codecs
from underpar.compress.encoded import DTYPES, Encoded, check_parts, decode
from underpar.core.errors import ArtifactError, suggest
from underpar.core.roles import Role

MAGIC = b"\x89UPAR\r\n\n"
"""Not ASCII and with both line ends, so that a transfer in text mode is noticed at once."""
VERSION = 1
PREFIX = struct.Struct("<8s32sHHII")
DIGEST_FROM = 40
"""The digest covers the file from here."""
MAX_HEADER_CODED_BYTES = 1 << 20
MAX_HEADER_BYTES = 16 << 20
MAX_NAME_CHARS = 256
MAX_DIMS = 8
MAX_ELEMENTS = 1 << 40
DEFAULT_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Stream:
    """One coded run of bytes: the concatenation of its parts, as byte planes when `planes` > 1."""

    codec: str
    coded_bytes: int
    decoded_bytes: int
    crc32: int
    planes: int


@dataclass(frozen=True)
class PartEntry:
    """Where one part of a tensor lies, and as what."""

    dtype: str
    shape: tuple[int, ...]
    order: str
    """'rows': row-major. 'columns': the last dimension slowest, which many coders like better for weight codes."""
    stream: int
    start: int
    """Byte offset in the decoded stream; derived from the order of the table, never read from the file."""

    @property
    def nbytes(self) -> int:
        return _nbytes(self.dtype, self.shape)


@dataclass(frozen=True)
class TensorEntry:
    """One row of the table."""

    name: str
    role: Role
    shape: tuple[int, ...]
    dtype: str
    method: str
    meta: Mapping[str, Any]
    parts: Mapping[str, PartEntry]


class Artifact:
    """A verified artifact. Tensors are decoded when asked for; a stream that was decoded once is kept.

    `header` is what the packer stored (architecture, tokenizer identity, recipe); `sha256` is the hash of the whole
    file and `container_bytes` its length.
    """

    def __init__(self, data: bytes, header: dict[str, Any], tensors: list[TensorEntry], streams: list[Stream]) -> None:
        self.header = header
        self.entries = {entry.name: entry for entry in tensors}
        self.streams = streams
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.container_bytes = len(data)
        self._data = data
        self._decoded: dict[int, bytearray] = {}
        self._pieces: list[list[codecs.Piece]] = [[] for _ in streams]
        for at in (at for entry in tensors for at in entry.parts.values()):
            self._pieces[at.stream].append(piece_of(at.shape, DTYPES[at.dtype].itemsize, at.order))

    @property
    def names(self) -> list[str]:
        """Of all tensors, in the order they were packed."""
        return list(self.entries)

    @property
    def roles(self) -> dict[str, Role]:
        return {name: entry.role for name, entry in self.entries.items()}

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor in its recorded shape and dtype. Raises ArtifactError: unknown name, contents out of range."""
        return decode(self.encoded(name))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor, as `tensor` gives it. Streams are decoded side by side, one on each core."""
        waiting = [index for index in range(len(self.streams)) if index not in self._decoded]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self._decoded.update(zip(waiting, pool.map(self._decode_stream, waiting), strict=True))
        return {name: self.tensor(name) for name in self.entries}

    def encoded(self, name: str) -> Encoded:
        """The parts of one tensor before dequantisation."""
        if name not in self.entries:
            raise ArtifactError(f"the artifact has no tensor {name!r}; {suggest(name, self.entries)}")
        entry = self.entries[name]
        parts = {part: self._array(at) for part, at in entry.parts.items()}
        return Encoded(name, entry.role, entry.shape, entry.dtype, entry.method, parts, entry.meta)

    def _array(self, at: PartEntry) -> torch.Tensor:
        dtype = DTYPES[at.dtype]
        count = math.prod(at.shape)
        if count == 0:
            return torch.empty(at.shape, dtype=dtype)
        if at.stream not in self._decoded:
            self._decoded[at.stream] = self._decode_stream(at.stream)
        # Copied: a stream does not align its parts, and a caller may write into what it gets.
        raw = self._decoded[at.stream][at.start : at.start + at.nbytes]
        if dtype is torch.bool and raw.strip(b"\x00\x01"):
            raise ArtifactError(f"stream {at.stream} holds a boolean that is neither 0 nor 1")
        flat = torch.frombuffer(raw, dtype=dtype, count=count)
        if at.order == "rows":
            return flat.reshape(at.shape)
        return flat.reshape(at.shape[::-1]).permute(*reversed(range(len(at.shape)))).contiguous()

    def _decode_stream(self, index: int) -> bytearray:
        stream = self.streams[index]
        start = len(self._data) - sum(later.coded_bytes for later in self.streams[index:])
        blob = self._data[start : start + stream.coded_bytes]
        data = codecs.decode(stream.codec, blob, stream.decoded_bytes, self._pieces[index])
        return unplane(data, stream.planes)


def read_artifact(source: Path | str | bytes, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Artifact:
    """Read and verify an artifact; tensors are decoded on access.

    Args:
        source: a file, or its bytes.
        max_bytes: limit of the file, of all decoded streams together and of all tensors together.
    Raises:
        ArtifactError: not an artifact, another version, damaged, truncated, or declaring more than `max_bytes`.
        Access to a
            tensor can raise it too. Nothing is allocated before the length that asks for it has been checked.
    """
    data = source if isinstance(source, bytes) else _read_file(Path(source), max_bytes)
    _check_total("the file", len(data), max_bytes)
    start, document = _read_header(data)
    _fields(document, "header block", header=dict, tensors=list, streams=list)
    streams = [_stream(item, i) for i, item in enumerate(document["streams"])]
    if sum(s.coded_bytes for s in streams) != len(data) - start:
        _fail(f"streams of {sum(s.coded_bytes for s in streams):,} bytes in a file with {len(data) - start:,} for them")
    _check_total("streams", sum(s.decoded_bytes for s in streams), max_bytes)
    tensors = _tensors(document["tensors"], streams)
    _check_total("tensors", sum(_nbytes(entry.dtype, entry.shape) for entry in tensors), max_bytes)
    _check_streams(data, start, streams)
    return Artifact(data, document["header"], tensors, streams)


def piece_of(shape: tuple[int, ...], item_bytes: int, order: str) -> codecs.Piece:
    """What a coder is told of a part: its last dimension, in the order of coding, is the columns."""
    dims = shape if order == "rows" else shape[::-1]
    return codecs.Piece(math.prod(dims[:-1]), dims[-1] if dims else 1, item_bytes)


def unplane(data: bytes, planes: int) -> bytearray:
    """Undo the split into byte planes: byte i of every item lies in plane i."""
    if planes == 1:
        return bytearray(data)
    out = bytearray(len(data))
    count = len(data) // planes
    for plane in range(planes):
        out[plane::planes] = data[plane * count : (plane + 1) * count]
    return out


# ------------------------------------------------------------------------------------------------- the file


def _fail(message: str) -> NoReturn:
    raise ArtifactError(message)


def _read_file(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            _check_total("the file", os.fstat(file.fileno()).st_size, max_bytes)
            return file.read()
    except OSError as problem:
        raise ArtifactError(f"cannot read {path}: {problem.strerror}") from None


def _read_header(data: bytes) -> tuple[int, dict[str, Any]]:
    """Where the streams start, and the decoded header block."""
    if not data.startswith(MAGIC):
        _fail(f"not an artifact: it begins with {data[:8]!r}, not with the .upar signature")
    if len(data) < PREFIX.size:
        _fail(f"artifact is cut off: {len(data)} bytes, the fixed part alone has {PREFIX.size}")
    _, digest, version, zero, coded_bytes, decoded_bytes = PREFIX.unpack_from(data)
    if version != VERSION or zero:
        _fail(f"artifact version {version}.{zero} is not readable here; this version of underpar reads {VERSION}.0")
    start = PREFIX.size + coded_bytes
    if coded_bytes > MAX_HEADER_CODED_BYTES or decoded_bytes > MAX_HEADER_BYTES or start > len(data):
        _fail(
            f"header of {coded_bytes:,} bytes ({decoded_bytes:,} decoded) in a file of {len(data):,}; "
            f"limits {MAX_HEADER_CODED_BYTES:,} and {MAX_HEADER_BYTES:,}"
        )
    if hashlib.sha256(memoryview(data)[DIGEST_FROM:]).digest() != digest:
        _fail(f"artifact is damaged: its checksum does not match{_where(data, start, coded_bytes, decoded_bytes)}")
    return start, _parse(codecs.decode("zlib", data[PREFIX.size : start], decoded_bytes))


def _where(data: bytes, start: int, coded_bytes: int, decoded_bytes: int) -> str:
    """For a damaged file, the place of the damage when the header is whole enough to tell."""
    try:
        document = _parse(codecs.decode("zlib", data[PREFIX.size : start], decoded_bytes))
        _fields(document, "header block", header=dict, tensors=list, streams=list)
        _check_streams(data, start, [_stream(item, i) for i, item in enumerate(document["streams"])])
    except ArtifactError as problem:
        return f" ({problem})"
    return ""


def _check_streams(data: bytes, start: int, streams: list[Stream]) -> None:
    for index, stream in enumerate(streams):
        end = start + stream.coded_bytes
        if end > len(data):
            _fail(f"stream {index} ends at byte {end:,} of {len(data):,}: the file is cut off")
        if zlib.crc32(memoryview(data)[start:end]) != stream.crc32:
            _fail(f"stream {index} is damaged, bytes {start:,} to {end:,}")
        start = end


def _check_total(what: str, total: int, max_bytes: int) -> None:
    if total > max_bytes:
        _fail(
            f"{what} would take {total:,} bytes, more than the limit of {max_bytes:,}; raise max_bytes if it is yours"
        )


# ------------------------------------------------------------------------------------------------- the header block


def _parse(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as problem:
        raise ArtifactError(f"header block is not JSON: {problem}") from None
    if not isinstance(document, dict):
        _fail("header block is not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def _fields(item: Any, where: str, **kinds: type) -> None:
    """Raise unless `item` is an object with exactly these keys, each of exactly this JSON type."""
    if not isinstance(item, dict) or set(item) != set(kinds):
        found = sorted(item) if isinstance(item, dict) else type(item).__name__
        _fail(f"{where}: expected an object with {sorted(kinds)}, found {found}")
    for key, kind in kinds.items():
        if type(item[key]) is not kind:
            _fail(f"{where}: {key} must be {kind.__name__}, found {type(item[key]).__name__}")


def _stream(item: Any, index: int) -> Stream:
    where = f"stream {index}"
    _fields(item, where, codec=str, coded_bytes=int, decoded_bytes=int, crc32=int, planes=int)
    stream = Stream(**item)
    if min(stream.coded_bytes, stream.decoded_bytes) < 0:
        _fail(f"{where}: negative size")
    if stream.planes not in (1, 2, 4, 8) or stream.decoded_bytes % stream.planes:
        _fail(
            f"{where}: {stream.planes} byte planes do not fit {stream.decoded_bytes:,} bytes (1, 2, 4 or 8 that divide)"
        )
    return stream


def _tensors(items: list[Any], streams: list[Stream]) -> list[TensorEntry]:
    """The table. Raises unless names are unique, parts obey their method and fill every stream exactly."""
    used = [0] * len(streams)
    entries = [_tensor(item, used, streams) for item in items]
    if len({entry.name for entry in entries}) != len(entries):
        _fail("two tensors have the same name")
    for index, (stream, total) in enumerate(zip(streams, used, strict=True)):
        if stream.decoded_bytes != total:
            _fail(f"stream {index} declares {stream.decoded_bytes:,} bytes, its parts have {total:,}")
    return entries


def _tensor(item: Any, used: list[int], streams: list[Stream]) -> TensorEntry:
    _fields(item, "tensor", name=str, role=str, shape=list, dtype=str, method=str, meta=dict, parts=list)
    name = item["name"]
    if not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        _fail(f"tensor name {name[:40]!r} of {len(name)} characters: 1 to {MAX_NAME_CHARS} printable ones are valid")
    if item["role"] not in set(Role):
        _fail(f"tensor {name!r}: unknown role {item['role']!r}; valid: {', '.join(Role)}")
    parts: dict[str, PartEntry] = {}
    for entry in item["parts"]:
        where = f"tensor {name!r}, part"
        _fields(entry, where, name=str, dtype=str, shape=list, order=str, stream=int)
        _check_part(entry, f"{where} {entry['name'][:40]!r}", parts, len(streams))
        start = used[entry["stream"]]
        at = PartEntry(entry["dtype"], _shape(entry["shape"], where), entry["order"], entry["stream"], start)
        used[at.stream] += at.nbytes
        parts[entry["name"]] = at
    shape = _shape(item["shape"], f"tensor {name!r}")
    found = {part: (at.dtype, at.shape) for part, at in parts.items()}
    check_parts(name, item["method"], shape, item["dtype"], found)
    return TensorEntry(name, Role(item["role"]), shape, item["dtype"], item["method"], item["meta"], parts)


def _check_part(entry: dict[str, Any], where: str, parts: Mapping[str, PartEntry], num_streams: int) -> None:
    if entry["name"] in parts:
        _fail(f"{where} occurs twice")
    if entry["dtype"] not in DTYPES:
        _fail(f"{where}: unknown dtype {entry['dtype'][:40]!r}; {suggest(entry['dtype'][:40], DTYPES)}")
    if entry["order"] not in ("rows", "columns"):
        _fail(f"{where}: unknown order {entry['order'][:40]!r}; valid: rows, columns")
    if not 0 <= entry["stream"] < num_streams:
        _fail(f"{where} is in stream {entry['stream']} of {num_streams}")


def _shape(dims: list[Any], where: str) -> tuple[int, ...]:
    if len(dims) > MAX_DIMS or not all(type(d) is int and 0 <= d < 1 << 31 for d in dims):
        _fail(f"{where}: shape {str(dims)[:60]} is not up to {MAX_DIMS} sizes from 0 to 2^31 - 1")
    if math.prod(max(d, 1) for d in dims) > MAX_ELEMENTS:  # zeros do not excuse the other sizes
        _fail(f"{where}: shape {dims} has more than {MAX_ELEMENTS:,} elements")
    return tuple(dims)


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * DTYPES[dtype].itemsize
