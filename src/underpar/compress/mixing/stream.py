"""Streams of the mixing coder: several arrays one after another, with one set of adaptive chances for all."""

from collections.abc import Iterator, Sequence
from math import ceil, log2

import numpy as np
import torch
from numpy.typing import NDArray

from underpar.compress.codecs import Piece
from underpar.compress.mixing import compiled, tables
from underpar.compress.mixing.references import find_references, no_references
from underpar.compress.trellis import halves

MAX_WIDTH, FOLD = 1 << 16, 1024
"""A matrix wider than MAX_WIDTH is coded in rows of FOLD, which bounds the memory for its columns."""
STORED = 255
"""First byte of a stream that is not coded. Otherwise it is the first matrix's class of variance."""
CODES_PER_BYTE = 1 << 14
"""More than one byte can hold: a decision costs at least -log2(1 - CHANCE_MIN / 65536) bits."""
TRELLIS_SHIFT = 0.25
SEAL_BITS = 16
TYPICAL_DISTANCE = 5
"""Codes with a larger mean magnitude have low bits coded apart."""


def encode(data: bytes, pieces: Sequence[Piece]) -> bytes:
    """The coded bytes of the arrays that make up `data`; at most one byte longer than it. Deterministic.

    Cost: about 0.1 microseconds a code on one core, and for finding similar rows up to 4 * rows^2 * cols multiply-adds.
    """
    arrays = [(piece, raw) for piece, raw in _places(np.frombuffer(data, np.uint8), pieces)]
    settings = [
        _settings(raw.view(np.int8).reshape(piece.rows, piece.cols)) if piece.item_bytes == 1 else None
        for piece, raw in arrays
    ]
    first = next((chosen[1] for chosen in settings if chosen), 0)
    coder = _Coder(np.zeros(len(data), np.uint8), first, decoding=False)
    for (piece, raw), chosen in zip(arrays, settings, strict=True):
        if chosen is None:
            coder.words(raw.reshape(-1, piece.item_bytes)[:, ::-1].copy())
        else:
            coder.matrix(raw.view(np.int8).reshape(piece.rows, piece.cols).copy(), *chosen)
    coder.seal(len(data))
    blob = coder.finish()
    return bytes([first]) + blob if len(blob) < len(data) else bytes([STORED]) + data


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
    if size > CODES_PER_BYTE * (len(blob) + 8):
        raise ValueError(f"so few bytes cannot hold {size:,}")
    coder = _Coder(np.frombuffer(bytearray(blob[1:]), np.uint8), min(blob[0], compiled.CLASSES - 1), decoding=True)
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

    def __init__(self, data: NDArray[np.uint8], variance_class: int, *, decoding: bool) -> None:
        self.data, self.variance_class, self.decoding = data, variance_class, decoding
        ahead = compiled.REGISTER_BITS // 8
        value = int.from_bytes(data[:ahead].tobytes().ljust(ahead, b"\0"), "big") if decoding else 0
        registers = [0, compiled.REGISTER, value, ahead if decoding else 0, int(decoding)]
        self.registers = np.array(registers, np.int64)
        self._matrix: tuple[NDArray[np.uint32], NDArray[np.int64]] | None = None
        self._words: tuple[NDArray[np.uint32], NDArray[np.int64]] | None = None

    def matrix(self, codes: NDArray[np.int8], shift: int = 0, variance_class: int = 0, phased: int = 0) -> None:
        if self._matrix is None:
            self._matrix = tables.matrix_table(self.variance_class), tables.matrix_weights()
        references = no_references() if self.decoding else find_references(codes)
        work = np.zeros((compiled.WORK, codes.shape[1]), np.int64)
        compiled.code_matrix(
            self.registers,
            self.data,
            codes,
            *self._matrix,
            tables.fixed(),
            work,
            shift,
            variance_class,
            phased,
            *references,
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


def _settings(codes: NDArray[np.int8]) -> tuple[int, int, int]:
    """How many low bits to take off distances, the class of variance of what is left, and whether a trellis shows."""
    wide = codes.astype(np.float64)
    magnitude = float(np.abs(wide).mean())
    shift = max(0, ceil(log2(magnitude / TYPICAL_DISTANCE))) if magnitude > 0 else 0
    variance = float((wide * wide).mean()) * 64 / 4**shift
    steps = compiled.CLASS_STEPS * log2(max(1.0, variance))
    return shift, min(compiled.CLASSES - 1, round(steps)), int(_is_trellis(codes))


def _is_trellis(codes: NDArray[np.int8]) -> bool:
    """Whether codes are half a step smaller where the trellis adds half a step: the mark of codes that were chosen by it."""
    if codes.shape[0] < 2:
        return False
    above = halves(torch.from_numpy(codes.copy())).numpy()
    if not 64 <= above.sum() <= above.size - 64:
        return False
    return bool(codes[~above].mean() - codes[above].mean() > TRELLIS_SHIFT)
