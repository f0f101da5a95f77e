"""What general compressors need for the same text: the bars beside a model's score."""

import gzip
import lzma
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import brotli
import zstandard

from underpar.core.errors import RecordError


@dataclass(frozen=True)
class CompressorBaseline:
    """One compressor on one text. `bpb` is compressed bits per byte of text."""

    name: str
    bytes: int
    bpb: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda text: gzip.compress(text, compresslevel=9, mtime=0),
    "xz -9e": lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME),
    "zstd -19": lambda text: zstandard.ZstdCompressor(level=19).compress(text),
    "brotli -11": lambda text: brotli.compress(text, quality=11, lgwin=24),
}


def compressor_baselines(text_bytes: bytes) -> list[CompressorBaseline]:
    """gzip -9, xz -9e, zstd -19 and brotli -11 (24-bit window) on `text_bytes`, one stream each.

    Pass the held-out text as it is scored: the UTF-8 bytes of its documents, in order, with nothing between them.

    Raises RecordError for an empty text. Cost: about 3 s for each megabyte on one core, more than half of it brotli.
    """
    if not text_bytes:
        raise RecordError("compressor baselines: the text is empty (0 bytes); pass the held-out documents")
    return [_measure(name, compress, text_bytes) for name, compress in COMPRESSORS.items()]


def baselines_json(text_bytes: bytes) -> dict[str, Any]:
    """`compressor_baselines` in the form of baselines.json."""
    rows = [row.to_json() for row in compressor_baselines(text_bytes)]
    return {"text_bytes": len(text_bytes), "compressors": rows}


def _measure(name: str, compress: Callable[[bytes], bytes], text: bytes) -> CompressorBaseline:
    began = time.perf_counter()
    size = len(compress(text))
    return CompressorBaseline(name, size, 8 * size / len(text), time.perf_counter() - began)
