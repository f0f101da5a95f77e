"""Tiny predictors over a small alphabet, and streams for them."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from underpar.referee.predictor import CallablePredictor

VOCAB, BOS = 20, 0


def stream(tokens: int = 600, seed: int = 1, document: int = 40) -> np.ndarray:
    """Ids with structure: each is likely to be near the one before; a BOS every `document` tokens."""
    generator = np.random.default_rng(seed)
    ids = np.cumsum(generator.integers(-2, 4, tokens)) % (VOCAB - 1) + 1
    ids[::document] = BOS
    return ids.astype(np.uint16)


def table(seed: int = 0, sharpness: float = 1.0) -> np.ndarray:
    """Probabilities (V, V) after a token."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(VOCAB, VOCAB))
    power = np.exp(logits)
    return power / power.sum(axis=1, keepdims=True)


def box(function: Callable[[np.ndarray], np.ndarray]) -> CallablePredictor:
    return CallablePredictor(lambda tokens: function(tokens.astype(np.int64)), VOCAB, BOS)


def fixed(tokens: np.ndarray) -> np.ndarray:
    """Honest: looks at the token before."""
    return -np.log(table()[tokens[:-1], tokens[1:]])


def adaptive(tokens: np.ndarray) -> np.ndarray:
    """Honest: counts grow behind each charge."""
    counts = np.full((VOCAB, VOCAB), 0.3)
    out = np.empty(len(tokens) - 1)
    for place, (one, other) in enumerate(pairwise(tokens)):
        out[place] = -np.log(counts[one, other] / counts[one].sum())
        counts[one, other] += 1
    return out
