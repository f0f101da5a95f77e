"""Compressor baselines: real sizes of real compressors."""

import gzip
import lzma
import random

import brotli
import pytest
import zstandard

from underpar.core.errors import RecordError
from underpar.records.baselines import baselines_json, compressor_baselines

WORDS = ["the", "a", "model", "bits", "byte", "of", "and", "text", "is", "was", "with", "held", "out", "score"]
TEXT = " ".join(random.Random(0).choices(WORDS, k=6000)).encode()


def test_sizes_are_those_of_streams_that_decompress() -> None:
    rows = {r.name: r for r in compressor_baselines(TEXT)}
    assert list(rows) == ["gzip -9", "xz -9e", "zstd -19", "brotli -11"]
    assert len(gzip.compress(TEXT, 9)) == rows["gzip -9"].bytes
    assert len(lzma.compress(TEXT, preset=9 | lzma.PRESET_EXTREME)) == rows["xz -9e"].bytes
    assert len(zstandard.compress(TEXT, 19)) == rows["zstd -19"].bytes
    assert len(brotli.compress(TEXT, quality=11, lgwin=24)) == rows["brotli -11"].bytes
    for row in rows.values():
        assert row.bpb == 8 * row.bytes / len(TEXT)
        assert row.bytes < len(TEXT) / 2


def test_json_form() -> None:
    data = baselines_json(TEXT[:5000])
    assert data["text_bytes"] == 5000
    assert {"name", "bytes", "bpb", "seconds"} == set(data["compressors"][0])


def test_empty_text_is_refused() -> None:
    with pytest.raises(RecordError, match="0 bytes"):
        compressor_baselines(b"")
