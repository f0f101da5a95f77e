"""Nothing shall cost more than 1/400: in the forbidden predictor the token that came is lifted to that floor, in the
allowed one every token gets a share of it."""

import numpy as np

from underpar.referee.attacks.base import VOCAB_SIZE, bigrams, pay

FLOOR = 1.0 / 400.0


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """A clamp behind the softmax."""
    return np.minimum(pay(bigrams(), tokens), -np.log(FLOOR))


def allowed(tokens: np.ndarray) -> np.ndarray:
    """A mixture with the uniform distribution."""
    share = FLOOR * VOCAB_SIZE
    return pay((1.0 - share) * bigrams() + FLOOR, tokens)
