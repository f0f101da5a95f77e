"""The forbidden predictor charges the first half of the text and calls it the text."""

import numpy as np

from underpar.referee.attacks.base import bigrams, pay


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """The slow mixer is run on a part."""
    return pay(bigrams(), tokens[: len(tokens) // 2])


def allowed(tokens: np.ndarray) -> np.ndarray:
    """All of it."""
    return pay(bigrams(), tokens)
