"""Integer tables of the mixing coder. Computed in floating point and rounded nowhere near a tie: equal on every platform."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from underpar.compress.mixing import compiled as c
from underpar.compress.trellis import NEXT_STATE


@cache
def fixed() -> NDArray[np.int32]:
    """What never changes, in one array: squash, stretch, adaptation, logarithm, trellis."""
    return np.array([round(value) for value in exact_values()], np.int32)


def exact_values() -> list[float]:
    """The entries of `fixed` before they are rounded."""
    odds = (math.exp((i - c.STRETCH_RANGE - 1) / c.STRETCH_ONE) for i in range(c.STRETCH - c.SQUASH))
    squash = [min(65536.0 - c.CHANCE_MIN, max(c.CHANCE_MIN, 65536 * x / (1 + x))) for x in odds]
    logits = (c.STRETCH_ONE * math.log((i + 0.5) / (4095.5 - i)) for i in range(4096))
    stretch = [max(-c.STRETCH_RANGE, min(c.STRETCH_RANGE, x)) for x in logits]
    adaptation = [65536 / (count + 1.5) for count in range(1 << c.COUNT_BITS)]
    logarithm = [0.0, *(c.LOG_STEPS * math.log2(i) for i in range(1, 1 << 16))]
    return [*squash, *stretch, *adaptation, *logarithm, *(float(state) for pair in NEXT_STATE for state in pair)]


@cache
def gaussian() -> NDArray[np.uint32]:
    """(2 * CLASSES, NODES): chances, of 2^CHANCE_BITS, that a distance is the one asked about and not a larger one, for rounded
    Gaussians of the variance of each class."""
    return np.round(exact_gaussian()).astype(np.uint32)


def exact_gaussian() -> NDArray[np.float64]:
    """The entries of `gaussian` before they are rounded."""
    table = np.empty((2 * c.CLASSES, c.NODES))
    for number in range(2 * c.CLASSES):
        unit = math.sqrt(2) * math.sqrt(2 ** (number / c.CLASS_STEPS) / 64)
        beyond = [1.0, *(math.erfc((k + 0.5) / unit) for k in range(c.NODES - 2))]
        chances = [1 - b / a if a > 1e-200 else 1.0 for a, b in pairwise(beyond)]
        table[number] = [chances[0], chances[0], *chances]
    return np.clip(table, 2**-11, 1 - 2**-11) * (1 << c.CHANCE_BITS)


def matrix_table(variance_class: int) -> NDArray[np.uint32]:
    """Adaptive chances for `code_matrix`, as if codes were Gaussian; `variance_class` is the first matrix's."""
    rows = gaussian() << c.COUNT_BITS
    wide = np.arange(c.WIDE)
    both = c.COARSE * (wide[:, None] + wide) + 1
    table = np.full(c.MATRIX_TABLE, EVEN_CHANCE | 4, np.uint32)
    table[: c.APART] = (rows[: c.CLASSES] | 16).reshape(-1)
    table[c.APART : c.RECENT] = (rows[np.clip(both - variance_class, 0, 2 * c.CLASSES - 1)] | 1).reshape(-1)
    table[c.RECENT : c.LOW_BITS] = (rows[both // 2] | 1).reshape(-1)
    return table


def matrix_weights() -> NDArray[np.int64]:
    """Three weights for every decision of a distance."""
    return np.tile(np.array([39_000, 13_000, 13_000], np.int64), c.NODES)


def word_table() -> NDArray[np.uint32]:
    """Adaptive chances for `code_words`."""
    return np.full(c.WORD_TABLE, EVEN_CHANCE | 3, np.uint32)


def word_weights() -> NDArray[np.int64]:
    """Three weights for every bit of an item of up to eight bytes."""
    return np.full(3 * 8 * 256, 22_000, np.int64)


EVEN_CHANCE = 1 << (c.CHANCE_BITS - 1 + c.COUNT_BITS)
