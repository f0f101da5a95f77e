"""Texts drawn from distributions that the referee knows exactly, in the document layout of a real one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from underpar.core.errors import ScoreError

TRIGRAM_WEIGHT, BIGRAM_WEIGHT = 0.6, 0.3
"""Of the text model: what follows the last two tokens somewhere, what follows the last one, and the rest by frequency."""


@dataclass(frozen=True)
class CanaryText:
    """Tokens drawn from q. `surprise` is -ln q of each target, 0 where `drawn` is False (the layout's BOS tokens)."""

    name: str
    tokens: np.ndarray
    """uint16 (N,)"""
    surprise: np.ndarray
    """float64 (N - 1,) nats"""
    drawn: np.ndarray
    """bool (N - 1,)"""
    entropy_nats: float
    """Of q per token: the least that a valid predictor can pay in expectation."""


def uniform_canary(layout: np.ndarray, counts: np.ndarray, bos_id: int | None, seed: int) -> CanaryText:
    """Every id that occurs equally likely. layout: uint16 (N,), of which the places of BOS are kept. counts: (vocab_size,).

    Raises ScoreError when there is nothing to draw.
    """
    return _draw("uniform", layout, (counts > 0).astype(np.float64), bos_id, seed)


def frequency_canary(layout: np.ndarray, counts: np.ndarray, bos_id: int | None, seed: int) -> CanaryText:
    """Ids as frequent as in the real text, in random order."""
    return _draw("frequency", layout, counts.astype(np.float64), bos_id, seed)


def _draw(name: str, layout: np.ndarray, weights: np.ndarray, bos_id: int | None, seed: int) -> CanaryText:
    q = _ordinary(weights, bos_id)
    is_bos = _is_bos(layout, bos_id)
    tokens = layout.copy()
    generator = np.random.default_rng(seed)
    tokens[~is_bos] = generator.choice(len(q), size=int((~is_bos).sum()), p=q).astype(tokens.dtype)
    drawn = ~is_bos[1:]
    surprise = np.zeros(len(drawn))
    surprise[drawn] = -np.log(q[tokens[1:][drawn]])
    used = q[q > 0]
    return CanaryText(name, tokens, surprise, _not_empty(drawn), float(-(used * np.log(used)).sum()))


def text_canary(
    layout: np.ndarray, source: np.ndarray, counts: np.ndarray, bos_id: int | None, seed: int
) -> CanaryText:
    """Ids drawn by a trigram model of `source`, uint16 (M,): draws look like text. Its entropy is that of these draws.

    The next token is that of a random place where the same two tokens stand (weight 0.6), the same one (0.3), or any (0.1);
    a context that never occurs passes its weight on. Cost: a sort of `source`; about 10 us a token.
    """
    model = _Trigrams(source, _ordinary(counts.astype(np.float64), bos_id), bos_id)
    generator = np.random.default_rng(seed)
    is_bos = _is_bos(layout, bos_id)
    tokens = layout.astype(np.int64)
    surprise = np.zeros(len(layout) - 1)
    if not is_bos[0]:
        tokens[0] = model.draw((), generator)
    for place in range(1, len(tokens)):
        if not is_bos[place]:
            context = tuple(tokens[max(0, place - 2) : place].tolist())
            tokens[place] = model.draw(context, generator)
            surprise[place - 1] = -np.log(model.probability(context, int(tokens[place])))
    drawn = _not_empty(~is_bos[1:])
    return CanaryText("text", tokens.astype(layout.dtype), surprise, drawn, float(surprise[drawn].mean()))


class _Trigrams:
    """What follows one token and two tokens, from places of a text where no BOS follows."""

    def __init__(self, source: np.ndarray, unigram: np.ndarray, bos_id: int | None) -> None:
        size = len(unigram)
        ids = source.astype(np.int64)
        self.unigram, self.size = unigram, size
        self.cumulative = np.cumsum(unigram)
        self.tables = []
        for order in (2, 1):
            target = ids[order:]
            context = ids[order - 1 : -1] if order == 1 else ids[:-2] * size + ids[1:-1]
            keys = (context * size + target)[~_is_bos(target, bos_id)]
            self.tables.append(np.sort(keys))

    def _span(self, order: int, low: int, high: int) -> tuple[int, int]:
        table = self.tables[0 if order == 2 else 1]
        first, last = np.searchsorted(table, [low, high])
        return int(first), int(last)

    def _contexts(self, context: tuple[int, ...]) -> list[tuple[int, float, int, int, int]]:
        """(order, weight, key, first, last) of the contexts that occur, and what is left for the frequencies."""
        found, left = [], 1.0
        for order, weight in ((2, TRIGRAM_WEIGHT), (1, BIGRAM_WEIGHT)):
            if len(context) < order:
                continue
            key = context[-1] if order == 1 else context[-2] * self.size + context[-1]
            first, last = self._span(order, key * self.size, (key + 1) * self.size)
            if last > first:
                found.append((order, weight, key, first, last))
                left -= weight
        found.append((0, left, 0, 0, 0))
        return found

    def draw(self, context: tuple[int, ...], generator: np.random.Generator) -> int:
        chosen = generator.random()
        for order, weight, _, first, last in self._contexts(context):
            if order and chosen < weight:
                return int(self.tables[0 if order == 2 else 1][generator.integers(first, last)] % self.size)
            chosen -= weight
        return int(np.searchsorted(self.cumulative, generator.random() * self.cumulative[-1], side="right"))

    def probability(self, context: tuple[int, ...], token: int) -> float:
        total = 0.0
        for order, weight, key, first, last in self._contexts(context):
            if not order:
                total += weight * float(self.unigram[token])
                continue
            low = key * self.size + token
            one, end = self._span(order, low, low + 1)
            total += weight * (end - one) / (last - first)
        return total


def _ordinary(weights: np.ndarray, bos_id: int | None) -> np.ndarray:
    """Weights as probabilities, BOS left out."""
    q = weights.copy()
    if bos_id is not None:
        q[bos_id] = 0.0
    if q.sum() <= 0:
        raise ScoreError("the text has no ordinary token; give a longer text")
    return q / q.sum()


def _is_bos(tokens: np.ndarray, bos_id: int | None) -> np.ndarray:
    return np.zeros(len(tokens), dtype=bool) if bos_id is None else tokens == bos_id


def _not_empty(drawn: np.ndarray) -> np.ndarray:
    if not drawn.any():
        raise ScoreError("the text has no ordinary token to predict; give a longer text")
    return drawn
