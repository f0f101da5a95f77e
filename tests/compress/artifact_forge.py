"""Taking artifacts apart and putting them together again with good checksums, from the description of the format alone."""

import hashlib
import json
import struct
import zlib
from typing import Any

PREFIX = struct.Struct("<8s32sHHII")


def take_apart(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """The header block and the coded streams."""
    *_, coded_bytes, _ = PREFIX.unpack_from(data)
    start = PREFIX.size + coded_bytes
    document = json.loads(zlib.decompress(data[PREFIX.size : start]))
    blobs = []
    for stream in document["streams"]:
        blobs.append(data[start : start + stream["coded_bytes"]])
        start += stream["coded_bytes"]
    assert start == len(data)
    return document, blobs


def forge(document: Any, blobs: list[bytes], *, text: bytes | None = None, version: int = 1) -> bytes:
    """An artifact with these contents whose digest is right. `text` replaces the JSON of the header block."""
    raw = json.dumps(document).encode() if text is None else text
    coded = zlib.compress(raw)
    body = struct.pack("<HHII", version, 0, len(coded), len(raw)) + coded + b"".join(blobs)
    return b"\x89UPAR\r\n\n" + hashlib.sha256(body).digest() + body


def with_streams(document: dict[str, Any], blobs: list[bytes]) -> bytes:
    """As `forge`, with lengths and checksums of the streams set to those of `blobs`."""
    for stream, blob in zip(document["streams"], blobs, strict=True):
        stream["coded_bytes"], stream["crc32"] = len(blob), zlib.crc32(blob)
    return forge(document, blobs)
