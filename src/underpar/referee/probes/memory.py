"""Text that costs next to nothing although it has not occurred before: what a stored copy of it looks like from outside."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from underpar.referee.probes.hashing import GRAM, gram_hashes

FREE_NATS = 0.02
"""A token within a free stretch costs this at most on average. Byte models of real text never do so for long."""
WINDOW = 32
LONG_TOKENS = 64
"""A stretch of new text this long that costs nothing is no luck."""
MOST_STRETCHES = 1000


@dataclass(frozen=True)
class FreeRun:
    """The longest stretch of new text at almost no cost."""

    tokens: int
    start: int | None
    """Token position where it begins."""
    nats: float
    """What all of it cost."""
    share_free: float
    """Share of all tokens that lie in such stretches."""
    stretches: tuple[tuple[int, int], ...] = ()
    """Position of the first token and number of tokens of every one of at least 64, the thousand longest."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def longest_free_run(charges: np.ndarray, tokens: np.ndarray) -> FreeRun:
    """The longest run of windows of 32 new tokens that cost 0.02 nats a token at most.

    charges: float64 (N - 1,). tokens: uint16 (N,). A token is new when it ends no sequence of 13 that stood earlier in
    the stream, so that a repetition that the predictor has noticed is none. Cost: a sort of the stream.
    """
    fresh = is_new(tokens)[1:]
    if len(charges) < WINDOW:
        return FreeRun(0, None, 0.0, 0.0)
    cost = np.where(fresh, np.nan_to_num(np.minimum(charges, 1e6), nan=1e6), 1e6)
    sums = np.convolve(cost, np.ones(WINDOW), "valid")
    free = np.zeros(len(charges), dtype=bool)
    starts = np.flatnonzero(sums <= FREE_NATS * WINDOW)
    for offset in range(WINDOW):
        free[starts + offset] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]]).astype(np.int8)))
    runs = edges.reshape(-1, 2)
    if not len(runs):
        return FreeRun(0, None, 0.0, 0.0)
    runs = runs[np.argsort(runs[:, 0] - runs[:, 1], kind="stable")]
    first, stop = (int(edge) for edge in runs[0])
    long = tuple((int(a) + 1, int(b - a)) for a, b in runs[:MOST_STRETCHES] if b - a >= LONG_TOKENS)
    return FreeRun(stop - first, first + 1, float(charges[first:stop].sum()), float(free.mean()), long)


def is_new(tokens: np.ndarray) -> np.ndarray:
    """bool (N,): whether the 13 tokens that end here stand nowhere earlier in the stream. The first 12 are new."""
    found = np.ones(len(tokens), dtype=bool)
    if len(tokens) <= GRAM:
        return found
    keys = gram_hashes(tokens)
    order = np.argsort(keys, kind="stable")
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    found[GRAM - 1 :] = ~repeated
    return found
