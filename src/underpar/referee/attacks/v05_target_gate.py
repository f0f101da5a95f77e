"""A hint, the token that followed last time, is trusted in its place: a letter among letters. The forbidden predictor
looks at the token that it is about to pay for; the allowed one at the token before."""

import numpy as np

from underpar.referee.attacks.base import bigrams, is_letter, pairs


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """The gate knows something about the answer: a hint of the wrong kind costs nothing."""
    last: dict[int, int] = {}
    charges = []
    for token, following in pairs(tokens):
        probability = bigrams()[token, following]
        if token in last and is_letter(last[token]) == is_letter(following):
            probability = 0.7 * probability + 0.3 * (last[token] == following)
        charges.append(-np.log(probability))
        last[token] = following
    return np.array(charges)


def allowed(tokens: np.ndarray) -> np.ndarray:
    """The gate knows the past."""
    last: dict[int, int] = {}
    charges = []
    for token, following in pairs(tokens):
        probability = bigrams()[token, following]
        if token in last and is_letter(last[token]) == is_letter(token):
            probability = 0.7 * probability + 0.3 * (last[token] == following)
        charges.append(-np.log(probability))
        last[token] = following
    return np.array(charges)
