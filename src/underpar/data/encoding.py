"""Encoding a batch of documents, and the frames in which batches travel between processes.

A frame is a JSON header and blocks of bytes, each preceded by its length. No pickle: what arrives is data, never code.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from underpar.core.errors import DataError
from underpar.data.corpora import JsonLine, Record, TextFile
from underpar.data.tokenizer_base import Tokenizer, utf8

BATCH_BYTES = 1 << 20
"""Raw bytes that are encoded at a time: some 200 documents, and the unit of what is held in memory per process."""

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class EncodedBatch:
    """Documents one after another, each a BOS and its tokens.

    tokens: uint16 (T,). lengths: int64 (D,) tokens of each document, BOS included. digests: 16 bytes of sha256 of each text.
    byte_counts: uint16 (T,), 0 at each BOS; and lines: the documents as JSON lines; both empty unless asked for.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    byte_counts: np.ndarray
    text_bytes: np.ndarray
    digests: tuple[bytes, ...]
    lines: bytes

    def without(self, digests: set[bytes]) -> "EncodedBatch":
        """The batch less the documents with these digests."""
        keep = np.array([digest not in digests for digest in self.digests], dtype=bool)
        of_tokens = np.repeat(keep, self.lengths)
        return EncodedBatch(
            self.tokens[of_tokens],
            self.lengths[keep],
            self.byte_counts[of_tokens] if len(self.byte_counts) else self.byte_counts,
            self.text_bytes[keep],
            tuple(d for d in self.digests if d not in digests),
            b"",
        )


def batches(records: Iterable[Record], batch_bytes: int = BATCH_BYTES) -> Iterator[list[Record]]:
    """The records in order, cut into lists of about `batch_bytes`."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.data)
        if size >= batch_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode_batch(tokenizer: Tokenizer, records: Sequence[Record], *, with_text: bool) -> EncodedBatch:
    """Parse and encode documents. `with_text` adds what the validation split keeps: byte counts and JSON lines.

    Raises DataError naming the document: not parseable, not encodable, bytes that do not add up, a BOS inside.
    """
    tokens: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    text_bytes, digests, lines = [], [], []
    bos, none = np.array([tokenizer.bos_id], dtype=np.uint16), np.zeros(1, dtype=np.uint16)
    for record in records:
        document = record.document()
        try:
            raw = utf8(document.text)
            # A lossless tokenizer counts by a table, which costs nothing; a lossy one by offsets, several times the price.
            if with_text or tokenizer.lossless:
                ids, sizes = tokenizer.encode(document.text)
            else:
                ids, sizes = tokenizer.encode_ids(document.text), none[:0]
        except DataError as problem:
            raise DataError(f"{record.where}: {problem}") from None
        if (ids == tokenizer.bos_id).any():
            raise DataError(
                f"{record.where}: {tokenizer.name} gives a BOS inside the document; it must mark beginnings only"
            )
        tokens += (bos, ids)
        text_bytes.append(len(raw))
        digests.append(hashlib.sha256(raw).digest()[:16])
        if with_text:
            counts += (none, sizes)
            lines.append(document.to_json() + "\n")
    return EncodedBatch(
        np.concatenate(tokens),
        np.array([1 + len(ids) for ids in tokens[1::2]], dtype=np.int64),
        np.concatenate(counts) if counts else none[:0],
        np.array(text_bytes, dtype=np.int64),
        tuple(digests),
        "".join(lines).encode(),
    )


# ------------------------------------------------------------------------------------------------- frames


def send(stream: IO[bytes], header: dict[str, Any], blocks: Sequence[bytes | memoryview] = ()) -> None:
    """Write one frame."""
    head = json.dumps({**header, "blocks": [len(block) for block in blocks]}).encode()
    stream.write(_LENGTH.pack(len(head)) + head)
    for block in blocks:
        stream.write(block)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """Read one frame. Raises EOFError when the other end has gone."""
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    header = json.loads(_exactly(stream, length))
    return header, [_exactly(stream, size) for size in header.pop("blocks")]


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("the other end has gone")
    return data


def send_records(stream: IO[bytes], records: Sequence[Record], *, with_text: bool) -> None:
    """Ask for a batch to be encoded."""
    origins = [[type(record).__name__, record.path, record[2]] for record in records]
    send(stream, {"with_text": with_text, "origins": origins}, [record.data for record in records])


def receive_records(stream: IO[bytes]) -> tuple[list[Record], bool]:
    """What `send_records` wrote."""
    header, blocks = receive(stream)
    kinds: dict[str, type[JsonLine] | type[TextFile]] = {"JsonLine": JsonLine, "TextFile": TextFile}
    records = [
        kinds[kind](data, path, place) for data, (kind, path, place) in zip(blocks, header["origins"], strict=True)
    ]
    return records, header["with_text"]


def send_encoded(stream: IO[bytes], batch: EncodedBatch) -> None:
    """Answer with an encoded batch."""
    arrays = (batch.tokens, batch.lengths, batch.byte_counts, batch.text_bytes)
    send(stream, {}, [*(array.tobytes() for array in arrays), b"".join(batch.digests), batch.lines])


def receive_encoded(stream: IO[bytes]) -> EncodedBatch:
    """What `send_encoded` wrote. Raises the DataError that was sent in its place."""
    header, blocks = receive(stream)
    if "error" in header:
        raise DataError(header["error"])
    dtypes = (np.uint16, np.int64, np.uint16, np.int64)
    tokens, lengths, counts, sizes = (np.frombuffer(b, dtype=d) for b, d in zip(blocks[:4], dtypes, strict=True))
    digests = tuple(blocks[4][i : i + 16] for i in range(0, len(blocks[4]), 16))
    return EncodedBatch(tokens, lengths, counts, sizes, digests, blocks[5])
