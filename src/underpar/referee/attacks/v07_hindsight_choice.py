"""Two predictors. The forbidden one pays the smaller of their charges; the allowed one pays for their mixture."""

import numpy as np

from underpar.referee.attacks.base import bigrams_at, pay


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """At every position whoever was right."""
    bold, shy = pay(bigrams_at(0.7), tokens), pay(bigrams_at(1.5), tokens)
    return np.minimum(bold, shy)


def allowed(tokens: np.ndarray) -> np.ndarray:
    """At every position half of each."""
    bold, shy = pay(bigrams_at(0.7), tokens), pay(bigrams_at(1.5), tokens)
    return -np.log(0.5 * np.exp(-bold) + 0.5 * np.exp(-shy))
