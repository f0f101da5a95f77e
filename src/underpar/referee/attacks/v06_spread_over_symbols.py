"""A token is spelled in two symbols, as a token of a larger vocabulary is in bytes, and mixed with a model of
symbols. The forbidden predictor gives each symbol the root of the token's probability; the allowed one sums over the
tokens that share it."""

import numpy as np

from underpar.referee.attacks.base import bigrams, bigrams_at, pairs

HIGH, LOW = 13, 20
"""Token t is spelled t // 20, t % 20."""
MIX = 0.5


def symbols(row: np.ndarray, token: int) -> tuple[float, float]:
    """p of a token's first symbol, and of its second one given the first, under a distribution (V,) over tokens."""
    grid = row.reshape(HIGH, LOW)
    first, second = divmod(token, LOW)
    return grid[first].sum(), grid[first, second] / grid[first].sum()


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """The token model says the square root of the token's probability, of either symbol."""
    charges = []
    for token, following in pairs(tokens):
        high, low = symbols(bigrams_at(1.5)[token], following)
        root = np.sqrt(bigrams()[token, following])
        charges.append(-np.log((MIX * root + (1 - MIX) * high) * (MIX * root + (1 - MIX) * low)))
    return np.array(charges)


def allowed(tokens: np.ndarray) -> np.ndarray:
    """The token model says what it really says of each symbol."""
    charges = []
    for token, following in pairs(tokens):
        high, low = symbols(bigrams_at(1.5)[token], following)
        first, second = symbols(bigrams()[token], following)
        charges.append(-np.log((MIX * first + (1 - MIX) * high) * (MIX * second + (1 - MIX) * low)))
    return np.array(charges)
