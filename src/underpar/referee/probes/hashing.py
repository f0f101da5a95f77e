"""64-bit hashes of stretches of a token stream, all of them in a few passes over the array."""

from __future__ import annotations

import numpy as np

GRAM = 13
"""Tokens of the stretches that overlap is measured with: the field's customary length."""
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)


def gram_hashes(tokens: np.ndarray, size: int = GRAM) -> np.ndarray:
    """A hash of every `size` consecutive tokens, (N - size + 1,) uint64."""
    starts = np.arange(max(0, len(tokens) - size + 1))
    return span_hashes(tokens, starts, starts + size)


def span_hashes(tokens: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A hash of tokens[start:end] for every pair, uint64. Equal stretches have equal hashes wherever they stand.

    A polynomial in an odd base modulo 2^64 over scrambled ids: a difference of two prefix sums, shifted back by the inverse
    of the base. Two different stretches collide with a chance of about 2^-60.
    """
    with np.errstate(over="ignore"):
        powers = _powers(_BASE, len(tokens) + 1)
        prefix = np.zeros(len(tokens) + 1, dtype=np.uint64)
        np.cumsum(_scrambled(tokens.astype(np.uint64) + np.uint64(1)) * powers[:-1], out=prefix[1:])
        inverse = _powers(_INVERSE, len(tokens) + 1)
        return _scrambled((prefix[ends] - prefix[starts]) * inverse[starts])


def _powers(base: int, count: int) -> np.ndarray:
    factors = np.full(count, np.uint64(base), dtype=np.uint64)
    factors[0] = 1
    with np.errstate(over="ignore"):
        return np.multiply.accumulate(factors)


def _scrambled(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, so that close ids give unrelated numbers."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
