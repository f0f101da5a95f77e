"""Streams of the mixing coder: several arrays one after another, with one set of adaptive chances for all."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from underpar.compress.codecs import Piece
from underpar.compress.mixing import compiled, tables
from underpar.compress.mixing.references import References, find_references, no_references
from underpar.compress.mixing.settings import find_settings

MAX_WIDTH, FOLD = 1 << 16, 1024
"""A matrix wider than MAX_WIDTH is coded in rows of FOLD, which bounds the memory for its columns."""
CODED, STORED = 0, 255
"""First byte of a stream."""
CODES_PER_BYTE = 1 << 14
"""More than one byte can hold: a decision costs at least -log2(1 - CHANCE_MIN / 65536) bits."""
SEAL_BITS = 16


def encode(data: bytes, pieces: Sequence[Piece]) -> bytes:
    """The coded bytes of the arrays that make up `data`; at most one byte longer than it. Deterministic.

    Cost: about 0.1 microseconds a code on one core, and for finding similar rows up to 4 * rows^2 * cols multiply-adds.
    """
    arrays = list(_places(np.frombuffer(data, np.uint8), pieces))
    matrices = [raw.view(np.int8).reshape(piece.rows, piece.cols) for piece, raw in arrays if piece.item_bytes == 1]
    references = [find_references(codes) for codes in matrices]
    settings = find_settings(matrices, references)
    blobs = [bytes([STORED]) + data, _encode(arrays, settings, references)]
    if any(chosen[compiled.LINEAR] < compiled.NEVER for chosen in settings):
        for chosen in settings:  # rows of several kinds can upset the predictions, which shows only here
            chosen[compiled.LINEAR] = compiled.NEVER
        blobs.append(_encode(arrays, settings, references))
    return min(blobs, key=len)


def _encode(
    arrays: Sequence[tuple[Piece, NDArray[np.uint8]]],
    settings: Sequence[NDArray[np.int64]],
    references: Sequence[References],
) -> bytes:
    size = sum(raw.size for _, raw in arrays)
    coder = _Coder(np.zeros(size, np.uint8), decoding=False)
    known = zip(settings, references, strict=True)
    for piece, raw in arrays:
        if piece.item_bytes > 1:
            coder.words(raw.reshape(-1, piece.item_bytes)[:, ::-1].copy())
        else:
            coder.matrix(raw.view(np.int8).reshape(piece.rows, piece.cols).copy(), *next(known))
    coder.seal(size)
    return bytes([CODED]) + coder.finish()


def decode(blob: bytes, size: int, pieces: Sequence[Piece]) -> bytes:
    """The `size` bytes that `encode` was given, for the same pieces.

    Raises ValueError when `blob` is cut off, too long, cannot hold so much, or is damaged in a way that shows at its end.
    Time and memory are proportional to `size`, whatever the contents.
    """
    if not blob:
        raise ValueError("it is empty")
    if blob[0] == STORED:
        if len(blob) - 1 != size:
            raise ValueError(f"it stores {len(blob) - 1:,} bytes, not {size:,}")
        return blob[1:]
    if blob[0] != CODED:
        raise ValueError(f"it begins with {blob[0]}")
    if size > CODES_PER_BYTE * (len(blob) + 8):
        raise ValueError(f"so few bytes cannot hold {size:,}")
    coder = _Coder(np.frombuffer(bytearray(blob[1:]), np.uint8), decoding=True)
    out = np.zeros(size, np.uint8)
    for piece, raw in _places(out, pieces):
        if piece.item_bytes > 1:
            words = np.zeros((piece.rows * piece.cols, piece.item_bytes), np.uint8)
            coder.words(words)
            raw.reshape(-1, piece.item_bytes)[:] = words[:, ::-1]
        else:
            coder.matrix(raw.view(np.int8).reshape(piece.rows, piece.cols))
    if coder.seal(size) != size & ((1 << SEAL_BITS) - 1):
        raise ValueError("what it holds is of another size, or damaged")
    coder.check_end()
    return out.tobytes()


class _Coder:
    """One arithmetic code and the state of the two models, each made when it is first needed."""

    def __init__(self, data: NDArray[np.uint8], *, decoding: bool) -> None:
        self.data = data
        ahead = compiled.REGISTER_BITS // 8
        value = int.from_bytes(data[:ahead].tobytes().ljust(ahead, b"\0"), "big") if decoding else 0
        registers = [0, compiled.REGISTER, value, ahead if decoding else 0, int(decoding)]
        self.registers = np.array(registers, np.int64)
        self._matrix: NDArray[np.int64] | None = None
        self._factors: dict[int, tuple[NDArray[np.int32], NDArray[np.int64]]] = {}
        self._words: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def matrix(
        self,
        codes: NDArray[np.int8],
        settings: NDArray[np.int64] | None = None,
        references: References | None = None,
    ) -> None:
        if self._matrix is None:
            self._matrix = tables.matrix_table()
        width = codes.shape[1]
        if width not in self._factors:
            size = width if width <= compiled.MAX_LINEAR else 1
            self._factors[width] = np.zeros((size, size), np.int32), np.zeros(1, np.int64)
        compiled.code_matrix(
            self.registers,
            self.data,
            codes,
            self._matrix,
            tables.fixed(),
            np.zeros(len(compiled.SETTING_BITS), np.int64) if settings is None else settings,
            np.zeros((compiled.WORK, width), np.int64),
            np.zeros((compiled.LINES, width), np.int32),
            *self._factors[width],
            *(references or no_references()),
        )

    def words(self, words: NDArray[np.uint8]) -> None:
        if self._words is None:
            self._words = tables.word_table(), tables.word_weights()
        compiled.code_words(self.registers, self.data, words, *self._words, tables.fixed())

    def seal(self, size: int) -> int:
        """Code SEAL_BITS of the size of everything: what decodes to anything else is damaged."""
        return int(compiled.code_plain(self.registers, self.data, SEAL_BITS, size & ((1 << SEAL_BITS) - 1)))

    def finish(self) -> bytes:
        """The bytes written. One more than the registers have given away is enough: a decoder reads zeros after it."""
        end = int(self.registers[compiled.POSITION])
        if end >= len(self.data):
            return bytes(len(self.data) + 1)
        self.data[end] = self.registers[compiled.HIGH] >> compiled.TOP
        return self.data[: end + 1].tobytes()

    def check_end(self) -> None:
        """Raise ValueError unless exactly the whole of `data` was needed."""
        needed = int(self.registers[compiled.POSITION]) - compiled.REGISTER_BITS // 8 + 1
        if needed != len(self.data):
            raise ValueError(f"{len(self.data):,} bytes where {needed:,} are needed")


def _places(data: NDArray[np.uint8], pieces: Sequence[Piece]) -> Iterator[tuple[Piece, NDArray[np.uint8]]]:
    """The arrays that are not empty, as views of `data`, which they fill."""
    assert sum(piece.nbytes for piece in pieces) == len(data)
    start = 0
    for piece in (part for whole in pieces for part in _folded(whole) if part.nbytes):
        yield piece, data[start : start + piece.nbytes]
        start += piece.nbytes


def _folded(piece: Piece) -> list[Piece]:
    if piece.cols <= MAX_WIDTH or piece.item_bytes > 1:
        return [piece]
    rows, rest = divmod(piece.rows * piece.cols, FOLD)
    return [Piece(rows, FOLD), Piece(1, rest)]
