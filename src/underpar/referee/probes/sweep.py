"""The target sweep: one position, every token of the vocabulary charged there. As probabilities the charges must sum to 1.

A predictor that is handed whole streams is run once for every token, on the text up to the position with that token at its
end. One that gives distributions is simply read. Positions are chosen half at random, which bounds the share of positions
that can be wrong, and half where a cheat pays: those that `screen` points at or, where nothing was screened, those where the
real token was cheapest for its frequency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from underpar.referee.predictor import Predictor, Stepwise, Sweepable
from underpar.referee.probes.flip import difference

SUM_TOLERANCE = 1e-3
DRIFT_TOLERANCE = 1e-4
"""A mean this far from 1 is no rounding of single precision, though each sum may be within the tolerance."""
SCREENED_SHARE, LEAST_SCREENED = 32, 64
"""One id in so many is charged at a screened position, and no fewer than the second number."""
SWEEP_POSITIONS = 32_768
"""Forward positions that a sweep of an artifact may cost."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class SweepResult:
    """Sums of exp(-charge) over the vocabulary."""

    positions: tuple[int, ...]
    """Of the tokens that were replaced."""
    chosen_at_random: int
    """The first so many of them."""
    vocab_size: int
    ids: int
    """Tokens charged at each position: the vocabulary, or a sample with the likeliest ones."""
    sums: tuple[float, ...]
    largest_probability: tuple[float, ...]
    """At each position, of the tokens charged: a sum above 1 needs no other token where this one exceeds 1."""
    cut_change_nats: float
    """Largest difference between the real token's charge at the end of the shortened text and in the whole one."""
    screened: int = 0
    """Positions at which the likeliest ids alone were charged, to choose those that are not random."""
    screened_ids: int = 0
    largest_screened: float = 0.0
    """The largest sum over those that were charged with nothing else altered; above 1 it needs no other id."""

    @property
    def is_full(self) -> bool:
        return self.ids >= self.vocab_size

    @property
    def least_sum(self) -> float:
        return min(self.sums)

    @property
    def largest_sum(self) -> float:
        return max(self.sums)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"least_sum": self.least_sum, "largest_sum": self.largest_sum}


def target_sweep(predictor: Sweepable, prefix: np.ndarray) -> SweepResult:
    """Charge every id of the vocabulary at every position of one row of an artifact. prefix: uint16 (T,)."""
    charges = predictor.sweep(prefix)
    places = range(1, len(prefix) + 1)
    return _result(list(places), len(prefix), charges.shape[0], list(np.exp(-charges).T), 0.0)


def sweep_distributions(predictor: Stepwise, tokens: np.ndarray) -> SweepResult:
    """Of a stepwise predictor: every position, from the distributions themselves."""
    rows = predictor.distributions(tokens)
    return _result(list(range(1, len(tokens))), len(rows), rows.shape[1], list(rows), 0.0)


def sweep_by_charging(
    predictor: Predictor,
    tokens: np.ndarray,
    positions: Sequence[int],
    at_random: int,
    ids_at: Callable[[int], np.ndarray],
    base: np.ndarray,
) -> SweepResult:
    """Charge the text up to each position with every one of some ids at its end. base: charges of the whole text.

    ids_at: position -> ids, the real token among them; its charge is compared with that in the whole text.
    Cost: one scoring of the text up to the position for every id.
    """
    columns, cut = [], 0.0
    for position in positions:
        ids = ids_at(position)
        stream, column = tokens[: position + 1].copy(), np.zeros(len(ids))
        for row, token in enumerate(ids.tolist()):
            stream[position] = token
            last = predictor.charges(stream)[-1]
            column[row] = np.exp(-last)
            if token == tokens[position]:
                cut = max(cut, float(difference(np.array([last]), base[position - 1 : position])[0]))
        columns.append(column)
    return _result(list(positions), at_random, predictor.vocab_size, columns, cut)


def likely_ids(tokens: np.ndarray, position: int, count: int) -> np.ndarray:
    """At most count + 1 ids: what follows the token before, most often first, then the most frequent; and the real one."""
    following = np.bincount(tokens[1:][tokens[:-1] == tokens[position - 1]], minlength=int(tokens.max()) + 1)
    weight = following * float(len(tokens)) + np.bincount(tokens, minlength=len(following))
    likely = np.argsort(-weight, kind="stable")[:count]
    return np.union1d(likely, tokens[position : position + 1].astype(np.int64))


def screened_ids(vocab_size: int) -> int:
    """Ids that are charged at a screened position."""
    return min(vocab_size, max(LEAST_SCREENED, vocab_size // SCREENED_SHARE))


def _result(
    positions: list[int], at_random: int, vocab_size: int, columns: Sequence[np.ndarray], cut: float
) -> SweepResult:
    """columns: the probabilities of the ids charged at each position."""
    return SweepResult(
        positions=tuple(positions),
        chosen_at_random=at_random,
        vocab_size=vocab_size,
        ids=min(map(len, columns)),
        sums=tuple(float(column.sum()) for column in columns),
        largest_probability=tuple(float(column.max()) for column in columns),
        cut_change_nats=cut,
    )


def sweep_prefix_tokens(vocab_size: int, context: int) -> int:
    """Positions that a full-vocabulary sweep can afford: 32 for 1,024 tokens, 4 for 8,192, never fewer than 2."""
    return min(context, 64, max(2, SWEEP_POSITIONS // vocab_size))


def sweep_choice(
    tokens: np.ndarray, base: np.ndarray, count: int, bos_id: int | None, generator: np.random.Generator
) -> tuple[list[int], int]:
    """`count` positions to sweep: the first half at random, the others where the charge is lowest for the token's frequency.

    Returns the positions and how many of them were chosen at random.
    """
    free = np.arange(2, len(tokens))
    if bos_id is not None:
        free = free[tokens[free] != bos_id]
    at_random = min(len(free), (count + 1) // 2)
    chosen = generator.choice(free, at_random, replace=False).tolist()
    frequency = np.bincount(tokens, minlength=int(tokens.max()) + 1) / len(tokens)
    gain = -np.log(frequency[tokens[free]]) - np.nan_to_num(base[free - 1], nan=np.inf)
    for place in np.argsort(-gain, kind="stable").tolist():
        if len(chosen) >= min(count, len(free)):
            break
        if int(free[place]) not in chosen:
            chosen.append(int(free[place]))
    return [int(position) for position in chosen], at_random


def sweep_ids(
    tokens: np.ndarray, position: int, vocab_size: int, count: int, generator: np.random.Generator
) -> np.ndarray:
    """The whole vocabulary where `count` allows it; else the likeliest ids at the position and a sample of the others."""
    if count >= vocab_size:
        return np.arange(vocab_size)
    likely = likely_ids(tokens, position, count // 2)
    rest = np.setdiff1d(np.arange(vocab_size), likely)
    return np.sort(np.concatenate([likely, generator.choice(rest, count - len(likely), replace=False)]))


def share_ruled_out(positions: int) -> float:
    """The share of positions that cannot be wrong, at 95 % confidence, when none of so many random ones was."""
    return 1.0 if positions == 0 else 1.0 - (1.0 - CONFIDENCE) ** (1.0 / positions)
