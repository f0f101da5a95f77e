"""Probes of the predictor itself: does a later token move an earlier charge, and do probabilities sum to 1."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from underpar.evaluate.windows import Window
from underpar.referee.predictor import Predictor

FLIP_WINDOWS = 3
"""Forward passes of the segment that is flipped: enough for a seam between two windows on either side."""
FLIP_TOLERANCE_NATS = 1e-5
"""Charges of float32 models of equal shapes are equal; bfloat16 ones are as well, but their reductions may be reordered."""
SUM_TOLERANCE = 1e-3
SWEEP_POSITIONS = 32_768
"""Forward positions that a target sweep may cost."""


@dataclass(frozen=True)
class FlipResult:
    """Charges before t, compared after tokens at and behind t were altered."""

    positions: tuple[int, ...]
    """The first altered token of every trial; each was run once with one token altered and once with the whole rest."""
    tokens: int
    """Length of the segment."""
    noise_nats: float
    """Largest change of a charge between two runs on the same tokens."""
    largest_change_nats: float
    """Largest change of a charge that came before the alteration."""
    worst_position: int | None
    passed: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def flip_segment_tokens(window: Window, available: int) -> int:
    """Tokens that the first few windows of a long stream cover, at most `available`."""
    spans = itertools.islice(window.spans(FLIP_WINDOWS * window.context), FLIP_WINDOWS)
    return min(available, max(span.stop for span in spans) + 1)


def future_flip(predictor: Predictor, tokens: np.ndarray, seed: int, trials: int) -> FlipResult:
    """Alter tokens from position t on and compare the charges of tokens before t with those of the unaltered text.

    tokens: uint16 (N,), N >= 3. The altered tokens are drawn uniformly from the ids other than BOS. The tolerance is four
    times the change that a mere repetition shows, and 1e-5 nats at least. Cost: 2 + 2 * trials scorings of the segment.
    """
    generator = np.random.default_rng(seed)
    base = predictor.charges(tokens)
    noise = float(np.abs(predictor.charges(tokens) - base).max())
    count = min(trials, len(tokens) - 2)
    positions = np.sort(generator.choice(np.arange(2, len(tokens)), size=count, replace=False))
    ordinary = np.setdiff1d(np.arange(predictor.vocab_size), [predictor.bos_id])
    worst, worst_position = 0.0, None
    for position in positions.tolist():
        for stop in (position + 1, len(tokens)):
            altered = tokens.copy()
            altered[position:stop] = _different(tokens[position:stop], ordinary, generator)
            change = float(np.abs(predictor.charges(altered) - base)[: position - 1].max())
            if change > worst:
                worst, worst_position = change, position
    passed = worst <= max(FLIP_TOLERANCE_NATS, 4 * noise)
    return FlipResult(tuple(positions.tolist()), len(tokens), noise, worst, worst_position, passed)


def _different(tokens: np.ndarray, ordinary: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An ordinary id for every token, never the one that stood there."""
    drawn = generator.integers(0, len(ordinary), size=len(tokens))
    same = ordinary[drawn] == tokens
    drawn[same] = (drawn[same] + 1) % len(ordinary)
    return ordinary[drawn].astype(tokens.dtype)


class Sweepable(Protocol):
    """A predictor whose charges of all tokens at one place can be asked for directly."""

    @property
    def vocab_size(self) -> int: ...

    def sweep(self, prefix: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class SweepResult:
    """Sums of exp(-charge) over the vocabulary."""

    positions: int
    vocab_size: int
    least_sum: float
    largest_sum: float
    passed: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def target_sweep(predictor: Sweepable, prefix: np.ndarray) -> SweepResult:
    """Charge every id of the vocabulary at every position of one row. Each position's probabilities must sum to 1 +- 1e-3."""
    sums = np.exp(-predictor.sweep(prefix)).sum(axis=0)
    passed = bool(np.all(np.abs(sums - 1.0) <= SUM_TOLERANCE))
    return SweepResult(len(prefix), predictor.vocab_size, float(sums.min()), float(sums.max()), passed)


def sweep_prefix_tokens(vocab_size: int, context: int) -> int:
    """Positions that a full-vocabulary sweep can afford: 32 for 1,024 tokens, 4 for 8,192, never fewer than 2."""
    return min(context, 64, max(2, SWEEP_POSITIONS // vocab_size))
