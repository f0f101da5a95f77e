"""Counts grow over the documents, the longest of which come first. The forbidden predictor has read the two longest before any
charge, and charges them as well; in the other one every charge is final before it counts, in an order that is not the text's.
Whether that order is free is contested, so that the twin is disputed and not valid."""

import numpy as np

from underpar.referee.attacks.base import BOS, VOCAB_SIZE, bigrams


def longest_first(tokens: np.ndarray) -> list[tuple[int, int]]:
    """Input positions [first, stop) of every document."""
    starts = np.flatnonzero(tokens[:-1] == BOS).tolist()
    bounds = list(zip(starts, [*starts[1:], len(tokens) - 1], strict=True))
    return sorted(bounds, key=lambda bound: bound[0] - bound[1])


def count(seen: np.ndarray, tokens: np.ndarray) -> None:
    """What follows what in a document."""
    np.add.at(seen, (tokens[:-1], tokens[1:]), 1.0)


def charged(tokens: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The documents in their order, each by the counts of those before it."""
    charges = np.zeros(len(tokens) - 1)
    for first, stop in longest_first(tokens):
        table = (8.0 * bigrams() + seen) / (8.0 + seen.sum(axis=1, keepdims=True))
        charges[first:stop] = -np.log(table[tokens[first:stop], tokens[first + 1 : stop + 1]])
        count(seen, tokens[first : stop + 1])
    return charges


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """The two longest documents are counted, and then everything is charged."""
    seen = np.zeros((VOCAB_SIZE, VOCAB_SIZE))
    for first, stop in longest_first(tokens)[:2]:
        count(seen, tokens[first : stop + 1])
    return charged(tokens, seen)


def allowed(tokens: np.ndarray) -> np.ndarray:
    """A document is charged and then counted."""
    return charged(tokens, np.zeros((VOCAB_SIZE, VOCAB_SIZE)))
