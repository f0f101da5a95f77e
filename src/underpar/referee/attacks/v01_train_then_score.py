"""Counts are fitted to the text: in the forbidden predictor before it is charged, in the allowed one behind each
charge."""

import numpy as np

from underpar.referee.attacks.base import bigrams, pairs, pay


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """Train on the text for three epochs, then score it."""
    counts = 20.0 * bigrams()
    for _ in range(3):
        np.add.at(counts, (tokens[:-1], tokens[1:]), 1.0)
    return pay(counts / counts.sum(axis=1, keepdims=True), tokens)


def allowed(tokens: np.ndarray) -> np.ndarray:
    """Train on every token right after it was charged."""
    counts = 20.0 * bigrams()
    charges = []
    for token, following in pairs(tokens):
        charges.append(-np.log(counts[token, following] / counts[token].sum()))
        counts[token, following] += 1.0
    return np.array(charges)
