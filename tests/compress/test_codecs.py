"""Every coder returns what it was given, and never more than it was told to expect."""

import lzma
import tracemalloc
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from underpar.compress.codecs import Brotli, Codec, Mixing, Store, Xz, Zlib, Zstd, decode
from underpar.core.errors import ArtifactError

CODECS = [Store(), Zlib(), Zstd(), Brotli(), Xz(preset=0), Mixing()]
by_name = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
packed = pytest.mark.parametrize("codec", CODECS[1:], ids=lambda codec: codec.name)


@by_name
@given(data=st.binary(max_size=3000))
def test_round_trip(codec: Codec, data: bytes) -> None:
    assert decode(codec.name, codec.encode(data), len(data)) == data


@by_name
def test_a_wrong_size_is_refused(codec: Codec) -> None:
    data = bytes(range(256)) * 40
    blob = codec.encode(data)
    for size in (0, 1, len(data) - 1, len(data) + 1, 2 * len(data)):
        with pytest.raises(ArtifactError):
            decode(codec.name, blob, size)


@packed
def test_truncation_and_trailing_bytes_are_refused(codec: Codec) -> None:
    data = b"the quick brown fox " * 100
    blob = codec.encode(data)
    for damaged in (b"", blob[:1], blob[: len(blob) // 2], blob[:-1], blob + b"\0", blob + blob):
        with pytest.raises(ArtifactError):
            decode(codec.name, damaged, len(data))


BOMB_BYTES = 256 << 20


@pytest.mark.parametrize(
    ("name", "blob"),
    [
        ("zlib", zlib.compress(bytes(BOMB_BYTES), 1)),
        ("xz", lzma.compress(bytes(BOMB_BYTES), check=lzma.CHECK_NONE, preset=0)),
        ("brotli", brotli.compress(bytes(BOMB_BYTES), quality=1)),
        ("zstd", zstandard.ZstdCompressor(level=1).compress(bytes(BOMB_BYTES))),
    ],
    ids=["zlib", "xz", "brotli", "zstd"],
)
def test_a_bomb_does_not_unfold(name: str, blob: bytes) -> None:
    """256 MiB of zeros declared as 1,000 bytes are refused with hardly any memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match="1,000"):
            decode(name, blob, 1000)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_zstd_without_a_size_is_refused() -> None:
    blob = zstandard.ZstdCompressor(write_content_size=False).compress(b"abc" * 100)
    with pytest.raises(ArtifactError):
        decode("zstd", blob, 300)


def test_xz_cannot_ask_for_a_huge_dictionary() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 27, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}]
    blob = lzma.compress(b"abc", lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=filters)
    with pytest.raises(ArtifactError, match="xz stream"):
        decode("xz", blob, 3)


def test_an_unknown_codec_names_the_nearest() -> None:
    with pytest.raises(ArtifactError, match="did you mean 'brotli'"):
        decode("brotly", b"", 0)


def test_zlib_is_never_larger_than_its_default_strategy() -> None:
    """Text wants matches, noise wants none; both are readable by any zlib."""
    text = b"".join(b"line %d of a text with repeats\n" % i for i in range(2000))
    noise = bytes(sum(text[i : i + 6]) // 9 for i in range(len(text)))
    for data in (text, noise):
        blob = Zlib().encode(data)
        assert zlib.decompress(blob) == data
        assert len(blob) <= len(zlib.compress(data, 9))
