"""Which earlier rows predict a row: rows of an embedding are alike where their tokens are."""

import numpy as np
from numpy.typing import NDArray

from underpar.compress.mixing.compiled import COEFFICIENT_BITS, REFERENCES

BLOCK = 256
"""Rows whose similarities are held at once."""
OVERHEAD_BITS = 13.0
"""Of one reference besides its number: the multiple, and what predictions from the row so far would have saved anyway."""
MIN_ROWS, MIN_WIDTH = 64, 32
"""Smaller matrices have nothing to refer to that would pay."""

References = tuple[NDArray[np.int64], NDArray[np.int64]]


def no_references() -> References:
    """What `code_matrix` takes for a matrix without any."""
    return np.full((1, REFERENCES), -1, np.int64), np.zeros((1, REFERENCES), np.int64)


def find_references(codes: NDArray[np.int8]) -> References:
    """For each row up to REFERENCES earlier rows and multiples, in sixteenths, that save more bits than they cost.

    Matching pursuit: the row most correlated with what is left of this one, again and again, while codes of the smaller
    variance would save the bits of naming it. codes: (rows, cols). Cost: REFERENCES * rows^2 * cols multiply-adds.
    """
    height, width = codes.shape
    if height < MIN_ROWS or width < MIN_WIDTH:
        return no_references()
    plain = codes.astype(np.float32)
    centred = plain - plain.mean(0)
    norms = np.sqrt((centred * centred).sum(1)) + 1e-6
    unit = centred / norms[:, None]
    rows = np.full((height, REFERENCES), -1, np.int64)
    multiples = np.zeros((height, REFERENCES), np.int64)
    saved = 0.0
    for start in range(0, height, BLOCK):
        stop = min(height, start + BLOCK)
        saved += _pursue(unit, norms, centred[start:stop], start, rows[start:stop], multiples[start:stop])
    return (rows, multiples) if saved > height else no_references()


def _pursue(
    unit: NDArray[np.float32],
    norms: NDArray[np.float32],
    block: NDArray[np.float32],
    start: int,
    rows: NDArray[np.int64],
    multiples: NDArray[np.int64],
) -> float:
    """References of the rows from `start` on, into the last two arrays. Returns the bits saved."""
    count, width = block.shape
    left, own = block.copy(), np.arange(count)
    is_later = np.arange(start + count)[None, :] >= (start + own)[:, None]
    is_open = np.ones(count, bool)
    cost = np.log2(np.maximum(2, start + own)) + OVERHEAD_BITS
    limit = 1 << (COEFFICIENT_BITS - 1)
    total = 0.0
    for k in range(REFERENCES):
        match = left @ unit[: start + count].T
        match[is_later] = 0.0
        best = np.abs(match).argmax(1)
        scale = np.rint(16 * match[own, best] / norms[best]).clip(-limit, limit - 1)
        after = left - (scale / 16)[:, None] * (unit[best] * norms[best][:, None])
        energy, rest = (left * left).sum(1) + width / 12, (after * after).sum(1) + width / 12
        gain = 0.5 * width * np.log2(energy / rest) - cost
        is_open &= (gain > 0) & (scale != 0)
        rows[is_open, k], multiples[is_open, k] = best[is_open], scale[is_open]
        left[is_open] = after[is_open]
        total += float(gain[is_open].sum())
    return total
