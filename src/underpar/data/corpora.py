"""Documents, streamed from JSON lines (plain, .gz, .xz, .zst) and from folders of text, one at a time in memory.

A JSON line is an object with the key "text"; "id", "source" and "license" are kept where they are strings. A text file
is one document, byte for byte. Order is that of the files given; within a folder, of the sorted relative paths.
"""

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, cast

import zstandard

from underpar.core.errors import DataError
from underpar.core.units import format_bytes

MAX_DOCUMENT_BYTES = 256 * 1024 * 1024
"""Longest line or text file that is read. A longer one is more likely a broken file than a document."""

_ZSTD_CHUNK = 1 << 14
"""Compressed bytes decoded at a time: small, because a hostile frame can grow thousands of times."""

TEXT_SUFFIXES = (".txt", ".md")


class Document(NamedTuple):
    """One text with what is known of its origin ('' where nothing is)."""

    text: str
    id: str = ""
    source: str = ""
    license: str = ""

    def to_json(self) -> str:
        """One JSON line without the newline: the text and every field that is not empty."""
        fields = {name: value for name, value in self._asdict().items() if value or name == "text"}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


class JsonLine(NamedTuple):
    """A line that has been read and not yet parsed, so that parsing can happen in another process."""

    data: bytes
    path: str
    line: int

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    def document(self) -> Document:
        """The document of the line. Raises DataError naming file and line."""
        try:
            fields = json.loads(self.data)
        except (ValueError, RecursionError) as problem:
            raise DataError(f"{self.where} is not a JSON line: {problem}") from None
        if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
            found = f"keys {', '.join(list(fields)[:8])}" if isinstance(fields, dict) else type(fields).__name__
            raise DataError(f'{self.where}: expected an object with a string at "text", got {found}')
        known = (fields.get(name) for name in ("id", "source", "license"))
        return Document(fields["text"], *(value if isinstance(value, str) else "" for value in known))


class TextFile(NamedTuple):
    """The bytes of a text file."""

    data: bytes
    path: str
    name: str

    @property
    def where(self) -> str:
        return self.path

    def document(self) -> Document:
        """The document that the file is. Raises DataError when it is not UTF-8."""
        try:
            return Document(self.data.decode("utf-8"), id=self.name)
        except UnicodeDecodeError as problem:
            raise DataError(f"{self.path} is not UTF-8 at byte {problem.start:,}; convert it or leave it out") from None


Record = JsonLine | TextFile


@dataclass
class ReadMeter:
    """How far a stream has come: bytes of the files themselves, compressed where they are."""

    done_bytes: int = 0


def stream_documents(paths: Iterable[str | Path]) -> Iterator[Document]:
    """Every document of the files and folders in order. Raises DataError naming the file and line that is at fault."""
    return (record.document() for record in stream_records(paths))


def stream_records(paths: Iterable[str | Path], meter: ReadMeter | None = None) -> Iterator[Record]:
    """As `stream_documents`, before parsing: about the cost of decompression. Blank lines are no documents."""
    meter = meter or ReadMeter()
    for path in paths:
        root = Path(path)
        for file in input_files(root):
            yield from _text_file(file, root, meter) if file.suffix in TEXT_SUFFIXES else _json_lines(file, meter)


def input_files(path: str | Path) -> list[Path]:
    """The files that an input stands for: itself, or what a folder holds, JSON lines or texts, hidden files left out.

    Raises DataError when there is nothing to read, or when a folder holds both kinds (a README beside the data would
    become a document unseen).
    """
    path = Path(path)
    if path.is_file():
        if path.suffix not in TEXT_SUFFIXES:
            _opener(path)
        return [path]
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path}")
    files = sorted(p for p in path.rglob("*") if p.is_file() and not _is_hidden(p.relative_to(path)))
    texts = [p for p in files if p.suffix in TEXT_SUFFIXES]
    lines = [p for p in files if p.name.endswith(tuple(_OPENERS))]
    if texts and lines:
        raise DataError(f"{path} holds texts ({texts[0].name}) and JSON lines ({lines[0].name}); name the files to use")
    if not texts and not lines:
        raise DataError(f"{path} holds no documents; expected {_accepted()}")
    return texts or lines


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _accepted() -> str:
    return ", ".join([*_OPENERS, *TEXT_SUFFIXES])


def _text_file(path: Path, root: Path, meter: ReadMeter) -> Iterator[Record]:
    size = path.stat().st_size
    if size > MAX_DOCUMENT_BYTES:
        raise DataError(f"{path} is {format_bytes(size)}, over the {MAX_DOCUMENT_BYTES:,} B of a document; split it")
    name = path.relative_to(root).as_posix() if root.is_dir() else path.name
    meter.done_bytes += size
    yield TextFile(path.read_bytes(), str(path), name)


def _json_lines(path: Path, meter: ReadMeter) -> Iterator[Record]:
    number, before = 0, meter.done_bytes
    try:
        with path.open("rb", buffering=1 << 18) as raw, _opener(path)(raw) as file:
            while line := file.readline(MAX_DOCUMENT_BYTES + 1):
                number += 1
                meter.done_bytes = before + raw.tell()
                if len(line) > MAX_DOCUMENT_BYTES:
                    raise DataError(f"{path}:{number} is longer than {MAX_DOCUMENT_BYTES:,} B; is it JSON lines?")
                if not line.isspace():
                    yield JsonLine(line, str(path), number)
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as problem:
        raise DataError(f"{path} is damaged after line {number:,}: {problem}; fetch it again") from None
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem.strerror or problem}") from None


def _opener(path: Path) -> "Callable[[BinaryIO], IO[bytes]]":
    for suffix, opener in _OPENERS.items():
        if path.name.endswith(suffix):
            return opener
    raise DataError(f"{path} is no known kind of text; expected {_accepted()}")


def _plain(raw: BinaryIO) -> IO[bytes]:
    return raw


def _gzip(raw: BinaryIO) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=raw))


def _xz(raw: BinaryIO) -> IO[bytes]:
    return lzma.LZMAFile(raw)


def _zstd(raw: BinaryIO) -> IO[bytes]:
    return io.BufferedReader(_WholeFrames(raw), 1 << 20)


class _WholeFrames(io.RawIOBase):
    """A zstd file as bytes. The library's reader ends silently where a frame was cut off; this one raises EOFError."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = self._new_frame()
        self._started = False
        self._ready = memoryview(b"")

    @staticmethod
    def _new_frame() -> "zstandard.ZstdDecompressionObj":
        return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        while not self._ready:
            if not self._decompress_more():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress_more(self) -> bool:
        """Fill `_ready` from the next piece of the file; False at its end."""
        chunk = self._frame.unused_data if self._frame.eof else b""
        chunk = chunk or self._raw.read(_ZSTD_CHUNK)
        if not chunk:
            if self._started and not self._frame.eof:
                raise EOFError("the last zstd frame is cut off")
            return False
        if self._frame.eof:
            self._frame = self._new_frame()
        self._started = True
        self._ready = memoryview(self._frame.decompress(chunk))
        return True


_OPENERS: dict[str, Callable[[BinaryIO], IO[bytes]]] = {
    ".jsonl": _plain,
    ".jsonl.gz": _gzip,
    ".jsonl.xz": _xz,
    ".jsonl.zst": _zstd,
}
