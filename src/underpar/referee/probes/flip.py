"""The future flip: tokens at and behind a position are altered; what was charged before it must not move.

A change counts when it comes back: the altered text and the unaltered one are each charged again, and only what differs
between all four pairs is held against the predictor. One that answers differently every time is thereby held to its own noise,
and one that is deterministic cannot be accused wrongly at all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from underpar.referee.predictor import Predictor

TOLERANCE_NATS = 1e-5
"""Charges of float32 models of equal shapes are equal; bfloat16 ones are as well, but their reductions may be reordered."""
NOISE_FACTOR = 4.0
"""A change within this many times the difference between two runs on the same tokens is noise."""

CUT_TOLERANCE_NATS = 1e-3
"""A shorter stream, or documents in another order, are computed in other shapes: this much of a charge may be rounding."""
LEAST_RISE_NATS = 1e-7
"""A later charge that rises by less is counted as unmoved."""


@dataclass(frozen=True)
class Trial:
    """One alteration and what it moved before it."""

    position: int
    """The first altered token."""
    kind: str
    """'token': it alone; 'text': all from there on become another part of the text; 'random': they become random ids."""
    tokens: int
    """Length of the stream."""
    change_nats: float
    """Largest change of an earlier charge that came back; within the tolerance it is the largest of the first two runs."""
    moved: int
    """Earlier charges that moved beyond the tolerance."""
    first_moved: int | None
    last_moved: int | None
    """The earliest and latest of them, as token positions."""
    later_rise: float | None = None
    """After one altered token: by which share the mean charge of the rest rose, from 32 tokens behind it on. What is
    learnt from text hardly notices; a copy that was followed word by word is lost."""
    later_dearer: float | None = None
    """The share of these positions that became dearer, and not cheaper or the same. What adapts is moved either way; without
    the copy every token costs more."""
    own_moved: bool = True
    """Whether charges of the position's own document moved, and did so with its own later tokens alone. Where they did not,
    what moved may have been scored later: see `arrangement`."""


@dataclass(frozen=True)
class FlipResult:
    """All trials on one stream."""

    trials: tuple[Trial, ...]
    noise_nats: float
    """Largest difference of a charge between runs on the same tokens."""
    noise_total_nats: float
    """Difference of the sums of two such runs."""
    total_nats: float
    """Sum of all charges of the unaltered stream."""

    @property
    def tolerance_nats(self) -> float:
        return tolerance(self.noise_nats)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"tolerance_nats": self.tolerance_nats}


def tolerance(noise_nats: float) -> float:
    """The change that is still noise."""
    return max(TOLERANCE_NATS, NOISE_FACTOR * noise_nats)


class Comparison:
    """One stream, charged as often as needed, against altered ones."""

    def __init__(self, predictor: Predictor, tokens: np.ndarray) -> None:
        """Charges the stream twice."""
        self.predictor, self.tokens = predictor, tokens
        self.base = predictor.charges(tokens)
        self.again = predictor.charges(tokens)
        self.last = self.base
        """The charges of the stream that was altered last."""
        self.noise = float(difference(self.base, self.again).max())
        self.noise_total = abs(total(self.base) - total(self.again))

    def earlier_change(self, altered: np.ndarray, position: int) -> np.ndarray:
        """Change of the charges of tokens before `position`, (position - 1,) nats, that comes back."""
        return self.change(altered, slice(0, position - 1))

    def change(self, altered: np.ndarray, region: slice) -> np.ndarray:
        """Change of the charges in a region that comes back. What the repetitions show of the noise is learned."""
        found = self.last = self.predictor.charges(altered)
        change = difference(found[region], self.base[region])
        if not len(change) or change.max() <= tolerance(self.noise):
            return change
        base, again = self.predictor.charges(self.tokens), self.predictor.charges(altered)
        self.noise = max(self.noise, float(difference(base, self.base).max()), float(difference(found, again).max()))
        pairs = [
            difference(one[region], other[region]) for one in (found, again) for other in (self.base, base, self.again)
        ]
        return np.min(pairs, axis=0)


def total(charges: np.ndarray) -> float:
    """The sum in nats, an infinite charge counted as a million."""
    return float(np.nansum(np.minimum(charges, 1e6)))


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|one - other|, 0 where both are infinite or one is uncharged."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.where(one == other, 0.0, np.abs(one - other)), nan=0.0, posinf=np.inf)


def future_flip(predictor: Predictor, tokens: np.ndarray, seed: int, trials: int) -> FlipResult:
    """Alter tokens from a position on and compare what was charged before it with the unaltered stream.

    tokens: uint16 (N,), N >= 3. trials: positions; each is altered alone and, alternately, with the whole rest replaced by
    other text and by random ids. Cost: 2 + 2 * trials scorings, two more for a change that must be confirmed.
    """
    generator = np.random.default_rng(seed)
    comparison = Comparison(predictor, tokens)
    found = []
    ordinary = ordinary_ids(tokens, predictor.bos_id)
    is_start = np.zeros(len(tokens), dtype=bool) if predictor.bos_id is None else tokens == predictor.bos_id
    positions = [
        one - 1 if is_start[one] and one > 2 else one for one in flip_positions(len(tokens), trials, generator)
    ]
    for number, position in enumerate(positions):
        for kind in ("token", ("text", "random")[number % 2]):
            altered = alter(tokens, position, kind, ordinary, generator)
            change = comparison.earlier_change(altered, position)
            after = later_rise(comparison, position) if kind == "token" else (None, None)
            trial = _trial(position, kind, len(tokens), change, tolerance(comparison.noise), after)
            if trial.moved and is_start.any():
                trial = replace(trial, own_moved=_moves_its_own(comparison, altered, position, is_start))
            found.append(trial)
    return FlipResult(tuple(found), comparison.noise, comparison.noise_total, total(comparison.base))


def flip_positions(length: int, trials: int, generator: np.random.Generator) -> list[int]:
    """Distinct positions in 2 .. length - 1: the last token, then early ones (even in the logarithm) and any in turn.

    Early ones find what is fitted to the beginning of the text; the last one finds what is fitted to all of it.
    """
    chosen: list[int] = [length - 1]
    tries = 0
    while len(chosen) < min(trials, length - 2) and tries < 100 * trials:
        tries += 1
        early = len(chosen) % 2 == 1
        drawn = np.exp(generator.uniform(np.log(2), np.log(length))) if early else generator.uniform(2, length)
        position = min(length - 1, int(drawn))
        if position not in chosen:
            chosen.append(position)
    return chosen


def ordinary_ids(tokens: np.ndarray, bos_id: int | None) -> np.ndarray:
    """The ids that occur, BOS left out."""
    found = np.unique(tokens)
    return found if bos_id is None else found[found != bos_id]


def alter(
    tokens: np.ndarray, position: int, kind: str, ordinary: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """A copy in which the token at `position` is another one, and for 'text' and 'random' what follows as well.

    ordinary: ids to draw from. Other ids, the starts of documents, stay where they are and come nowhere else: a predictor
    that charges documents side by side then computes in the same shapes, and its roundings stay too.
    """
    altered = tokens.copy()
    behind = slice(position + 1, len(tokens))
    if kind != "token":
        drawn = generator.choice(ordinary, len(tokens)).astype(tokens.dtype)
        if kind == "text":
            other = np.roll(tokens, int(generator.integers(1, len(tokens))))
            drawn = np.where(np.isin(other, ordinary), other, drawn)
        altered[behind] = np.where(np.isin(tokens, ordinary), drawn, tokens)[behind]
    others = ordinary[ordinary != tokens[position]]
    altered[position] = generator.choice(others) if len(others) else tokens[position]
    return altered


def later_rise(comparison: Comparison, position: int) -> tuple[float | None, float | None]:
    """See `Trial`. None where fewer than 128 tokens follow."""
    first = position + 32
    was, now = (np.minimum(part[first:], 100.0) for part in (comparison.base, comparison.last))
    if np.isfinite(was).sum() < 128:
        return None, None
    rise = float((np.nanmean(now) - np.nanmean(was)) / max(np.nanmean(was), 1e-3))
    return rise, float(np.mean(now - was > max(LEAST_RISE_NATS, NOISE_FACTOR * comparison.noise)))


def _moves_its_own(comparison: Comparison, altered: np.ndarray, position: int, is_start: np.ndarray) -> bool:
    """Whether the altered tokens of the position's own document, apart from all others, move earlier charges of it."""
    start = int(np.flatnonzero(np.append(True, is_start[1 : position + 1]))[-1])
    following = np.flatnonzero(is_start[position + 1 :])
    stop = position + 1 + int(following[0]) if len(following) else len(altered)
    alone = comparison.tokens.copy()
    alone[position:stop] = altered[position:stop]
    change = comparison.change(alone, slice(start, position - 1))
    return bool(len(change) and change.max() > tolerance(comparison.noise))


def _trial(
    position: int,
    kind: str,
    length: int,
    change: np.ndarray,
    allowed: float,
    after: tuple[float | None, float | None],
) -> Trial:
    moved = np.flatnonzero(change > allowed) + 1
    return Trial(
        position,
        kind,
        length,
        change_nats=float(change.max()) if len(change) else 0.0,
        moved=len(moved),
        first_moved=int(moved[0]) if len(moved) else None,
        last_moved=int(moved[-1]) if len(moved) else None,
        later_rise=after[0],
        later_dearer=after[1],
    )
