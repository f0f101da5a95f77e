"""Integer tables of the mixing coder. Computed in floating point and rounded nowhere near a tie: equal on every platform."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from underpar.compress.mixing import compiled as c
from underpar.compress.trellis import NEXT_STATE


@cache
def fixed() -> NDArray[np.int64]:
    """What never changes, in one array: squash, stretch, adaptation, deviation and its inverse, square, trellis."""
    return np.array([round(value) for value in exact_values()], np.int64)


def exact_values() -> list[float]:
    """The entries of `fixed` before they are rounded."""
    odds = (math.exp((i - c.STRETCH_RANGE - 1) / c.STRETCH_ONE) for i in range(c.STRETCH - c.SQUASH))
    squash = [min(65536.0 - c.CHANCE_MIN, max(c.CHANCE_MIN, 65536 * x / (1 + x))) for x in odds]
    logits = (c.STRETCH_ONE * math.log((i + 0.5) / (4095.5 - i)) for i in range(4096))
    stretch = [max(-c.STRETCH_RANGE, min(c.STRETCH_RANGE, x)) for x in logits]
    adaptation = [65536 / (count + 1.6) for count in range(c.PLAIN_LIMIT + 1)]
    variances = [2.0 ** ((i + 0.5) / 2**c.FINE_BITS + c.LEAST_OCTAVE) for i in range(c.FINE)]
    scales = [*(256 * v**0.5 for v in variances), *(2**20 / v**0.5 for v in variances)]
    squares = [4096 * x for number in range(c.CLASSES) for x in _squares(_variance(number))]
    states = [float(state) for pair in NEXT_STATE for state in pair]
    return [*squash, *stretch, *adaptation, *scales, *squares, *states]


def _variance(number: int) -> float:
    """Mean square of the codes of a class where they are predicted by a whole number."""
    return float(2 ** ((number + 0.5) / 2**c.CLASS_BITS + c.LEAST_OCTAVE))


def _unit(variance: float) -> float:
    """sqrt(2) times the standard deviation of the Gaussian that has this variance when it is rounded."""
    if variance > 2:  # what rounding adds is 1/12 but for 1e-14
        return math.sqrt(2 * (variance - 1 / 12))
    low, high = 0.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        square = sum((2 * k - 1) * math.erfc((k - 0.5) / middle) for k in range(1, 16))
        low, high = (middle, high) if square < variance else (low, middle)
    return high


def _squares(variance: float) -> list[float]:
    """Mean squares of the distance from predictions in each cell, over the variance."""
    if variance > 2:
        return [1.0] * (1 << c.CELL_BITS)
    unit, found = _unit(variance), []
    for cell in range(1 << c.CELL_BITS):
        guess = cell / 2**c.CELL_BITS
        edges = [math.erf((k - 0.5 - guess) / unit) / 2 for k in range(-12, 14)]
        chances = [b - a for a, b in pairwise(edges)]
        found.append(sum(p * (k - guess) ** 2 for k, p in zip(range(-12, 13), chances, strict=True)) / variance)
    return found


@cache
def gaussian() -> NDArray[np.int64]:
    """Chances, of 65,536, of all decisions about a code where codes are rounded Gaussians of the variance of each class."""
    return np.round(exact_gaussian()).astype(np.int64)


def exact_gaussian() -> NDArray[np.float64]:
    """The entries of `gaussian` before they are rounded."""
    here, above = np.empty((c.CLASSES, c.OFFSETS, c.NODES)), np.empty((c.CLASSES, c.OFFSETS - 1))
    for number in range(c.CLASSES):
        unit = _unit(_variance(number))
        shift = max(0, number - c.SHIFT_FROM + 2 * 2**c.CLASS_BITS - 1 >> c.CLASS_BITS + 1)
        for offset in range(c.OFFSETS):
            beyond = [math.erfc((offset / 2**c.CELL_BITS + (k << shift) - 0.5) / unit) for k in range(c.NODES + 1)]
            here[number, offset] = [1 - b / a if a > 1e-200 else 1.0 for a, b in pairwise(beyond)]
            if offset:
                above[number, -offset] = beyond[0] / 2
    return np.clip(np.concatenate((here.reshape(-1), above.reshape(-1))), 2**-14, 1 - 2**-14) * 65536


def matrix_table() -> NDArray[np.int64]:
    """Adaptive chances for `code_matrix`, as if codes were Gaussian."""
    table = np.full(c.MATRIX_TABLE, EVEN_CHANCE | 4, np.int64)
    table[: c.LOW_BITS] = gaussian() << c.COUNT_BITS + 16 | GAUSSIAN_COUNT
    return table


def word_table() -> NDArray[np.int64]:
    """Adaptive chances for `code_words`."""
    return np.full(c.WORD_TABLE, EVEN_CHANCE | 3, np.int64)


def word_weights() -> NDArray[np.int64]:
    """Three weights for every bit of an item of up to eight bytes."""
    return np.full(3 * 8 * 256, 22_000, np.int64)


EVEN_CHANCE = 1 << (31 + c.COUNT_BITS)
GAUSSIAN_COUNT = 150
"""Outcomes that it takes to believe as much in them as in a Gaussian."""
