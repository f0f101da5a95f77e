"""Where to sweep: many positions tried in each pass, then the suspicious ones one by one.

Charging one id at one position takes a pass. In the first round a pass alters a position every 64 tokens, each to an id of
its own, and reads a charge at all of them. The text before a position is then not quite the same for every id, so that what
these charges add up to points at a position and proves nothing. In the second round ids are charged at one position alone, the
likeliest first, always where the sum, with what is now exact in it, is largest: a sum that was an accident falls back, one
that is not is proven.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from underpar.referee.predictor import Predictor

STRIDE = 64
"""Tokens between altered positions; the closer, the more a position learns from other altered ones."""
LEAST_ALTERED = 4
"""Positions of a pass over a short stretch, which are then closer to each other."""
AT_A_TIME = 4
"""Ids that are charged exactly before positions are compared again."""
CHECKS = 2
"""Exact charges for every pass of the first round."""


@dataclass
class Suspect:
    """One position: what some ids are given there."""

    position: int
    ids: np.ndarray
    """The likeliest first."""
    given: np.ndarray
    """float64 (ids,): probabilities, those of the first `exact` ids with nothing else altered."""
    exact: int = 0

    @property
    def mass(self) -> float:
        """What all ids are given; at most 1 of an honest predictor, but for what other altered tokens have done."""
        return float(self.given.sum())

    @property
    def proven(self) -> float:
        """What the exact ones are given; at most 1 of an honest predictor."""
        return float(self.given[: self.exact].sum())


def stride_of(length: int) -> int:
    """Between altered positions of a stretch."""
    return max(1, min(STRIDE, length // LEAST_ALTERED))


def rounds_of(positions: int, length: int) -> int:
    """Rounds of passes in which about so many positions are tried."""
    stride = stride_of(length)
    return min(stride, max(1, -(-positions * stride // length)))


def screen(
    predictor: Predictor,
    tokens: np.ndarray,
    positions: int,
    ids_at: Callable[[int], np.ndarray],
    enough: float,
    generator: np.random.Generator,
) -> list[Suspect]:
    """About `positions` positions of a stretch, the most suspicious first: those proven, then by their mass.

    tokens: uint16 (N,). ids_at: position -> ids to charge there; BOS is left out, and starts of documents stay. enough: a
    proven mass at which the search ends. Cost: for every round of positions a pass for each id, and twice as many shorter ones.
    """
    stride, bos = stride_of(len(tokens)), predictor.bos_id
    found: list[Suspect] = []
    passes = 0
    for offset in generator.permutation(stride)[: rounds_of(positions, len(tokens))].tolist():
        places = [p for p in range(offset, len(tokens), stride) if p >= 2 and tokens[p] != bos]
        lists = [generator.permutation(_ordinary(ids_at(place), bos)) for place in places]
        if places:
            passes += max(map(len, lists))
            found += _round(predictor, tokens, places, lists)
    _check(predictor, tokens, found, CHECKS * passes, enough)
    return sorted(found, key=lambda one: (-(one.proven > enough), -one.mass))


def _ordinary(ids: np.ndarray, bos: int | None) -> np.ndarray:
    return ids if bos is None else ids[ids != bos]


def _round(predictor: Predictor, tokens: np.ndarray, places: list[int], lists: list[np.ndarray]) -> list[Suspect]:
    given = [np.zeros(len(ids)) for ids in lists]
    for number in range(max(map(len, lists))):
        stream = tokens.copy()
        asked = [(one, place) for one, place in enumerate(places) if number < len(lists[one])]
        for one, place in asked:
            stream[place] = lists[one][number]
        charges = predictor.charges(stream)
        for one, place in asked:
            given[one][number] = _probability(charges[place - 1])
    orders = [np.argsort(-values, kind="stable") for values in given]
    return [
        Suspect(place, ids[order], values[order])
        for place, ids, values, order in zip(places, lists, given, orders, strict=True)
    ]


def _check(predictor: Predictor, tokens: np.ndarray, suspects: list[Suspect], most: int, enough: float) -> None:
    """Charge at most about `most` ids exactly, where the mass is largest, until one is proven."""
    waiting = [(-one.mass, number) for number, one in enumerate(suspects)]
    heapq.heapify(waiting)
    while waiting and most > 0:
        _, number = heapq.heappop(waiting)
        one = suspects[number]
        stream = tokens[: one.position + 1].copy()
        stop = min(one.exact + AT_A_TIME, len(one.ids))
        for index in range(one.exact, stop):
            stream[one.position] = one.ids[index]
            one.given[index] = _probability(predictor.charges(stream)[-1])
        most -= stop - one.exact
        one.exact = stop
        if one.proven > enough:
            return
        if stop < len(one.ids):
            heapq.heappush(waiting, (-one.mass, number))


def _probability(charge: float) -> float:
    return 0.0 if np.isnan(charge) else float(np.exp(-charge))
