"""What is said of a matrix before its codes. It makes them cheaper and nothing wrong: any choice decodes to the same codes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from underpar.compress.mixing import compiled as c
from underpar.compress.mixing.references import References
from underpar.compress.trellis import halves

TRELLIS_SHIFT = 0.25
HEAD = 64
"""Rows whose columns are compared with those of the next ones, to see how long a column stays as it is."""
LEAST_GAIN = 0.002
"""Bits a code that predictions from the row so far must save: they take as much time as all the rest."""


def find_settings(matrices: Sequence[NDArray[np.int8]], references: Sequence[References]) -> list[NDArray[np.int64]]:
    """For matrices of one stream, the settings of `code_matrix`."""
    found: list[NDArray[np.int64]] = []
    grams: dict[int, tuple[NDArray[np.float32], int]] = {}
    for codes, (rows, multiples) in zip(matrices, references, strict=True):
        is_phased = _is_trellis(codes)
        values = codes + 0.5 * _halves(codes) if is_phased else codes.astype(np.float32)
        for k in range(rows.shape[1] if len(rows) > 1 else 0):
            values -= np.where(rows[:, k] >= 0, multiples[:, k] / 16, 0)[:, None] * codes[rows[:, k]]
        priors, unit = _priors(values)
        found.append(np.array([is_phased, c.NEVER, *priors, len(rows) > 1], np.int64))
        height, width = codes.shape
        if width <= c.MAX_LINEAR and height > 1:
            gram, seen = grams.get(width, (np.zeros((width, width), np.float32), 0))
            grams[width] = gram + unit.T @ unit, seen + height
    linear = {width: _linear_prior(gram, seen) for width, (gram, seen) in grams.items()}
    for codes, chosen in zip(matrices, found, strict=True):
        chosen[c.LINEAR] = linear.get(codes.shape[1], c.NEVER)
    return found


def _priors(values: NDArray[np.float32]) -> tuple[list[int], NDArray[np.float32]]:
    """LEVEL to MEAN_PRIOR, and the values in standard deviations of their row and column."""
    height, width = values.shape
    means = values.mean(0)
    centred = values - means
    squares = centred * centred + 1e-4
    columns = np.full(width, squares.mean(), np.float32)
    level = round((math.log2(float(columns[0])) - c.LEAST_OCTAVE) * 2**c.CLASS_BITS)
    for _ in range(4):
        rows = squares @ (1 / columns) / width
        columns = (1 / rows) @ squares / height
    unit = centred / np.sqrt(rows[:, None] * columns)
    row_noise, row_spread = _spread((squares / columns).T)
    squares /= rows[:, None]
    noise, spread = _spread(squares)
    heads = squares[: height // HEAD * HEAD].reshape(-1, HEAD, width).mean(1) / columns
    chance = 1.1 / HEAD * (float(np.square(squares / columns).mean()) - 1)
    change = float(heads.var(0, ddof=1).mean()) - chance if len(heads) > 1 else 0.0
    return [
        min(c.CLASSES - 1, max(0, level)),
        _count(noise / spread),
        _count(8 / math.sqrt(max(1e-9, change))),
        _count(row_noise / row_spread),
        _count(1 / max(1e-9, float((means**2 / columns).mean()) - 1 / height)),
    ], unit


def _spread(squares: NDArray[np.float32]) -> tuple[float, float]:
    """How much single squares vary in their columns, and the columns' means in logarithms, of which chance is taken off.

    The least of two estimates: means near zero upset the one by logarithms, a few that are very large the other.
    """
    means = squares.mean(0)
    power = float(np.square(means).mean())
    noise = max(0.5, float(np.square(squares).mean()) / power - 1)
    chance = 1.1 * noise / len(squares)
    relative = (float(means.var()) - chance * power) / float(means.mean()) ** 2
    return noise, max(1e-9, min(math.log1p(max(0.0, relative)), float(np.log(means).var()) - chance))


def _count(number: float) -> int:
    """The logarithm of a number of codes; NEVER where it is too large to matter."""
    return min(c.NEVER, max(1, round(math.log2(number))))


def _linear_prior(gram: NDArray[np.float32], seen: int) -> int:
    """LINEAR for so many rows with this sum of outer products. Fewer than four a column would learn too fast to converge."""
    spectrum = np.linalg.eigvalsh(gram.astype(np.float64))
    least = (4 * len(gram) - 1).bit_length()
    gain, prior = max((_gain(spectrum, seen, float(1 << prior)), prior) for prior in range(least, c.NEVER))
    return prior if gain > LEAST_GAIN else c.NEVER


def _gain(spectrum: NDArray[np.float64], seen: int, weight: float) -> float:
    """Bits a code that a Gaussian of unknown correlations saves on one of none.

    From the evidence of an inverse Wishart prior centred on no correlations that weighs as much as `weight` rows.
    """
    width = len(spectrum)
    freedom = weight + width + 1
    terms = (math.lgamma((freedom + seen - k) / 2) - math.lgamma((freedom - k) / 2) for k in range(width))
    nats = sum(terms) + (freedom * width * math.log(weight) - (freedom + seen) * np.log(weight + spectrum).sum()) / 2
    return float(nats + (seen * width * math.log(2) + spectrum.sum()) / 2) / math.log(2) / (seen * width)


def _halves(codes: NDArray[np.int8]) -> NDArray[np.float32]:
    return halves(torch.from_numpy(codes.copy())).numpy().astype(np.float32)


def _is_trellis(codes: NDArray[np.int8]) -> bool:
    """Whether codes are half a step smaller where the trellis adds half a step: the mark of codes that were chosen by it."""
    if codes.shape[0] < 2:
        return False
    above = _halves(codes) > 0
    if not 64 <= above.sum() <= above.size - 64:
        return False
    return bool(codes[~above].mean() - codes[above].mean() > TRELLIS_SHIFT)
