"""Coders: the last step of packing. Decoding is bounded: a stream can never unfold to more than its declared size.

The sibling classes are choices of a recipe. What is written into an artifact is only the name of the coder, because
no decoder needs the settings of its encoder.
"""

import lzma
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from underpar.core.config import Config, Range, config
from underpar.core.errors import ArtifactError, suggest

XZ_MEMORY_BYTES = 96 << 20
"""What an xz stream may ask for. Preset 9 needs 65 MiB; a hostile dictionary size is refused."""


@dataclass(frozen=True)
class Piece:
    """One array in a stream as it lies there: `rows` x `cols` items of `item_bytes` bytes, row-major, little-endian."""

    rows: int
    cols: int
    item_bytes: int = 1

    @property
    def nbytes(self) -> int:
        return self.rows * self.cols * self.item_bytes


class Codec(Config):
    """Base of the coders."""

    name: ClassVar[str] = ""
    models_arrays: ClassVar[bool] = False
    """It wants arrays as they are: row by row, items whole. Byte coders do better on columns and byte planes."""

    def encode(self, data: bytes, pieces: Sequence[Piece] = ()) -> bytes:
        """The coded bytes; deterministic for one version of the library. `pieces` says what arrays `data` is made of."""
        raise NotImplementedError


@config
class Store(Codec):
    """Bytes as they are."""

    name: ClassVar[str] = "store"

    def encode(self, data: bytes, pieces: Sequence[Piece] = ()) -> bytes:
        return data


@config
class Zlib(Codec):
    """DEFLATE in a zlib frame: the coder of the first published recipes.

    Three of zlib's strategies are tried and the smallest result is kept: short matches in noise cost more than they
    save, and Huffman coding alone beats the default strategy by 0.9 % on int8 weight codes and by 5 to 14 % on
    6-bit ones. memory=9 doubles the symbols of a Huffman block against zlib's own default, for another 0.2 %.
    """

    name: ClassVar[str] = "zlib"
    level: Annotated[int, Range(at_least=0, at_most=9)] = 9
    memory: Annotated[int, Range(at_least=1, at_most=9)] = 9

    def encode(self, data: bytes, pieces: Sequence[Piece] = ()) -> bytes:
        strategies = (zlib.Z_HUFFMAN_ONLY, zlib.Z_FILTERED, zlib.Z_DEFAULT_STRATEGY)
        return min((self._with(strategy, data) for strategy in strategies), key=len)

    def _with(self, strategy: int, data: bytes) -> bytes:
        coder = zlib.compressobj(self.level, zlib.DEFLATED, zlib.MAX_WBITS, self.memory, strategy)
        return coder.compress(data) + coder.flush()


@config
class Zstd(Codec):
    """Zstandard, one frame that carries its decoded size."""

    name: ClassVar[str] = "zstd"
    level: Annotated[int, Range(at_least=1, at_most=22)] = 22

    def encode(self, data: bytes, pieces: Sequence[Piece] = ()) -> bytes:
        import zstandard

        return zstandard.ZstdCompressor(level=self.level, write_content_size=True).compress(data)


@config
class Brotli(Codec):
    """Brotli (RFC 7932) with the largest standard window."""

    name: ClassVar[str] = "brotli"
    quality: Annotated[int, Range(at_least=0, at_most=11)] = 11

    def encode(self, data: bytes, pieces: Sequence[Piece] = ()) -> bytes:
        import brotli

        return brotli.compress(data, quality=self.quality, lgwin=24)


@config
class Xz(Codec):
    """LZMA2 in an .xz frame. Its own checksum is off: the container has one."""

    name: ClassVar[str] = "xz"
    preset: Annotated[int, Range(at_least=0, at_most=9)] = 9

    def encode(self, data: bytes, pieces: Sequence[Piece] = ()) -> bytes:
        return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_NONE, self.preset | lzma.PRESET_EXTREME)


@config
class Mixing(Codec):
    """Adaptive models of rows and columns and an arithmetic coder: made for quantised weights.

    On codes that are noise of varying scale it goes below the order-0 entropy, which the other coders stay above.
    See `underpar.compress.mixing`.
    """

    name: ClassVar[str] = "mixing2"
    models_arrays: ClassVar[bool] = True

    def encode(self, data: bytes, pieces: Sequence[Piece] = ()) -> bytes:
        from underpar.compress.mixing import stream

        return stream.encode(data, pieces or [Piece(1, len(data))])


def decode(name: str, blob: bytes, size: int, pieces: Sequence[Piece] = ()) -> bytes:
    """The `size` bytes that the coder called `name` turned into `blob`, told the same pieces.

    Raises ArtifactError when the coder is unknown, the data is damaged, or it does not unfold to exactly `size`
    bytes with nothing behind it. Memory: a small multiple of `size` plus a constant (96 MiB for xz, 32 MiB for the
    others). Time is proportional to `size`, at most 0.3 microseconds a byte.
    """
    if name not in _DECODERS:
        raise ArtifactError(f"unknown codec {name!r}; {suggest(name, _DECODERS)}")
    try:
        data = _DECODERS[name](blob, size, pieces)
    except _Damaged as problem:
        raise ArtifactError(f"{name} stream of {len(blob):,} bytes does not decode: {problem}") from None
    if len(data) != size:
        more = "more than the" if len(data) > size else f"{len(data):,} bytes instead of"
        raise ArtifactError(f"{name} stream of {len(blob):,} bytes unfolds to {more} {size:,} declared")
    return data


class _Damaged(Exception):
    """Any library's complaint about its input, in one type."""


def _decode_store(blob: bytes, size: int, pieces: Sequence[Piece]) -> bytes:
    return blob


def _decode_zlib(blob: bytes, size: int, pieces: Sequence[Piece]) -> bytes:
    decoder = zlib.decompressobj()
    try:
        data = decoder.decompress(blob, size + 1)
    except zlib.error as problem:
        raise _Damaged(problem) from None
    if len(data) <= size and (not decoder.eof or decoder.unused_data):
        raise _Damaged("bytes behind the end" if decoder.eof else "it ends early")
    return data


def _decode_zstd(blob: bytes, size: int, pieces: Sequence[Piece]) -> bytes:
    import zstandard

    try:
        declared = zstandard.get_frame_parameters(blob).content_size
        if declared != size:  # before the library allocates what the frame asks for
            raise _Damaged(f"its frame holds {declared:,} bytes and the table says {size:,}")
        return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(blob, allow_extra_data=False)
    except zstandard.ZstdError as problem:
        raise _Damaged(problem) from None


def _decode_brotli(blob: bytes, size: int, pieces: Sequence[Piece]) -> bytes:
    import brotli

    decoder = brotli.Decompressor()
    chunks, total, fed = [], 0, blob
    try:
        while not decoder.is_finished() and total <= size:
            chunk = decoder.process(fed, output_buffer_limit=size + 1 - total)
            if not chunk and not fed and not decoder.is_finished():
                raise _Damaged("it ends early")
            chunks.append(chunk)
            total, fed = total + len(chunk), b""
    except brotli.error as problem:
        raise _Damaged(problem) from None
    return b"".join(chunks)


def _decode_xz(blob: bytes, size: int, pieces: Sequence[Piece]) -> bytes:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
    try:
        data = decoder.decompress(blob, size + 1)
    except lzma.LZMAError as problem:
        raise _Damaged(problem) from None
    if len(data) <= size and (not decoder.eof or decoder.unused_data):
        raise _Damaged("bytes behind the end" if decoder.eof else "it ends early")
    return data


def _decode_mixing(blob: bytes, size: int, pieces: Sequence[Piece]) -> bytes:
    from underpar.compress.mixing import stream

    try:
        return stream.decode(blob, size, pieces or [Piece(1, size)])
    except ValueError as problem:
        raise _Damaged(problem) from None


_DECODERS: dict[str, Callable[[bytes, int, Sequence[Piece]], bytes]] = {
    "store": _decode_store,
    "zlib": _decode_zlib,
    "zstd": _decode_zstd,
    "brotli": _decode_brotli,
    "xz": _decode_xz,
    "mixing2": _decode_mixing,
}
