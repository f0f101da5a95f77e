"""Another order of the documents: what a predictor does that scores them, say, longest first.

Such a predictor moves charges that stand earlier in the text, as one that looks ahead does. The two can be told apart. The
words of one document are altered at a time, while all documents keep their places and lengths. Where some order is kept, two
things hold: no charge of a document moves with later words of its own, and of two documents at most one is moved by the other,
directly or through others. Whatever reads the text before it is charged breaks one of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from underpar.referee.predictor import Predictor
from underpar.referee.probes.documents import document_starts
from underpar.referee.probes.flip import Comparison, alter, ordinary_ids, tolerance

MOST_DOCUMENTS = 6
"""Altered ones of a short stretch."""
MOST_OF_THE_WHOLE = 3
"""Of the whole text, where a pass is dear."""
LEAST_TOKENS = 4
"""Of a document that is altered: BOS, what keeps, what is altered."""
Edge = tuple[int, int]


@dataclass(frozen=True)
class ArrangementResult:
    """Which documents move which. Documents are numbered in the order of the stretch."""

    documents: int
    altered: tuple[int, ...]
    noise_nats: float
    moves: tuple[Edge, ...]
    """(altered, moved) for every pair of altered documents."""
    own: tuple[int, ...]
    """Documents of which an earlier charge moves when later words of their own are others."""
    circle: tuple[int, ...]
    """Documents of which each moves the next and the last the first; empty where there is an order of reading."""
    layout_bits: float
    """What telling the lengths of all documents of the text beforehand costs, at most."""

    @property
    def backward(self) -> int:
        """Pairs of which the later document moves the earlier one."""
        return sum(1 for one, other in self.moves if other < one)

    @property
    def keeps_an_order(self) -> bool:
        """Whether some order of the documents was found in which no charge depends on what is read later."""
        return len(self.altered) > 1 and not self.own and not self.circle

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"backward": self.backward, "keeps_an_order": self.keeps_an_order}


def document_arrangement(
    predictor: Predictor, tokens: np.ndarray, seed: int, most: int, text: np.ndarray, places: Sequence[int] = ()
) -> ArrangementResult | None:
    """Alter the words of up to `most` documents of `tokens`, uint16 (N,), each by itself: all, and from two places on.

    places: token positions whose documents come first; then the longest, the shortest, the first, the last and any. text: all
    of the held-out stream, whose lengths are priced. None where not two documents are long enough. Cost: 2 scorings, and 3 to
    9 for every document.
    """
    bounds = document_bounds(tokens, predictor.bos_id)
    generator = np.random.default_rng(seed)
    chosen = _choice(bounds, most, generator, places)
    if len(chosen) < 2:
        return None
    comparison = Comparison(predictor, tokens)
    ordinary = ordinary_ids(tokens, predictor.bos_id)
    moves: set[Edge] = set()
    own: set[int] = set()
    for number in chosen:
        start, stop = bounds[number]
        early = start + 1 + int(np.exp(generator.uniform(0, np.log(stop - start - 2))))
        for place, kind in ((start + 1, "text"), ((start + stop + 1) // 2, "random"), (early, "random")):
            # Random words cost more than any: an order that goes by what documents cost gets another one.
            altered = tokens.copy()
            altered[place:stop] = alter(tokens, place, kind, ordinary, generator)[place:stop]
            change = comparison.change(altered, slice(0, len(tokens) - 1))
            moved = np.flatnonzero(change > tolerance(comparison.noise)) + 1  # token positions
            if ((moved > start) & (moved < place)).any():
                own.add(number)
            moves |= _edges(number, moved, bounds, chosen)
    circle = find_circle(moves)
    lengths = [stop - start for start, stop in document_bounds(text, predictor.bos_id)]
    return ArrangementResult(
        documents=len(bounds),
        altered=tuple(chosen),
        noise_nats=comparison.noise,
        moves=tuple(sorted(moves)),
        own=tuple(sorted(own)),
        circle=circle,
        layout_bits=lengths_bits(lengths),
    )


def document_bounds(tokens: np.ndarray, bos_id: int | None) -> list[tuple[int, int]]:
    """[start, stop) of every document, its BOS included."""
    starts = document_starts(tokens, bos_id).tolist()
    return list(pairwise([*starts, len(tokens)]))


def _choice(
    bounds: Sequence[tuple[int, int]], most: int, generator: np.random.Generator, places: Sequence[int]
) -> list[int]:
    usable = [number for number, (start, stop) in enumerate(bounds) if stop - start >= LEAST_TOKENS]
    if len(usable) <= most:
        return usable
    by_length = sorted(usable, key=lambda number: bounds[number][1] - bounds[number][0])
    drawn = generator.permutation(usable).tolist()
    named = [n for place in places for n in usable if bounds[n][0] <= place < bounds[n][1]]
    wanted = dict.fromkeys([*named, by_length[-1], by_length[0], usable[0], usable[-1], *drawn])
    return sorted([*wanted][:most])


def _edges(number: int, moved: np.ndarray, bounds: Sequence[tuple[int, int]], among: Iterable[int]) -> set[Edge]:
    """From an altered document to those of `among` that moved with it.

    The target after a document's last token is the next BOS, which belongs to the document that predicts it.
    """
    firsts = np.array([start for start, _ in bounds])
    documents = np.unique(np.searchsorted(firsts, moved - 1, side="right") - 1).tolist()
    return {(number, other) for other in documents if other != number and other in among}


def find_circle(moves: Iterable[Edge]) -> tuple[int, ...]:
    """Some circle in a directed graph, () where there is none."""
    following: dict[int, list[int]] = {}
    for one, other in sorted(moves):
        following.setdefault(one, []).append(other)
    done: set[int] = set()

    def search(node: int, path: list[int]) -> tuple[int, ...]:
        if node in path:
            return tuple(path[path.index(node) :])
        if node in done:
            return ()
        for other in following.get(node, ()):
            if found := search(other, [*path, node]):
                return found
        done.add(node)
        return ()

    return next((found for node in following if (found := search(node, []))), ())


def lengths_bits(lengths: Sequence[int]) -> float:
    """Length in bits of an adaptive code for document lengths, each at least 1: its power of two, then the digits below it.

    Powers are coded by how often each has come (Krichevsky and Trofimov's estimator), digits as they are.
    """
    seen: Counter[int] = Counter()
    bits = 0.0
    powers = 32
    for number, length in enumerate(lengths):
        power = length.bit_length() - 1
        bits += power - math.log2((seen[power] + 0.5) / (number + powers / 2))
        seen[power] += 1
    return bits
