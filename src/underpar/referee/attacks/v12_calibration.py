"""A temperature is chosen by the first 256 tokens of the held-out text: in the forbidden predictor before they are
charged, in the allowed one after them."""

import numpy as np

from underpar.referee.attacks.base import bigrams, bigrams_at, pay

FIRST = 256
TEMPERATURES = (0.6, 0.8, 1.25, 1.6, 2.2)


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """Calibrate on held-out text, then score all of it."""
    tries = [pay(bigrams_at(temperature), tokens) for temperature in TEMPERATURES]
    return min(tries, key=lambda charges: charges[:FIRST].sum())


def allowed(tokens: np.ndarray) -> np.ndarray:
    """Score the first part as the artifact says; what it teaches is used behind it."""
    tries = [pay(bigrams_at(temperature), tokens) for temperature in TEMPERATURES]
    best = min(tries, key=lambda charges: charges[:FIRST].sum())
    return np.concatenate([pay(bigrams(), tokens)[:FIRST], best[FIRST:]])
