"""The forbidden predictor carries a copy of the held-out text and follows it as long as it fits; the allowed one
carries a table of what is common. Both are causal and sum to 1: only what they know differs."""

import numpy as np

from underpar.referee.attacks.base import bigrams, pay

SURE = 0.999


def forbidden(tokens: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """While the text is that of the copy, nearly all probability goes to the copy's next token."""
    charges = pay(bigrams(), tokens)
    for place in range(1, min(len(tokens), len(stored))):
        if tokens[place - 1] != stored[place - 1]:
            break
        probability = (1 - SURE) * np.exp(-charges[place - 1]) + SURE * (stored[place] == tokens[place])
        charges[place - 1] = -np.log(probability)
    return charges


def allowed(tokens: np.ndarray) -> np.ndarray:
    """Statistics of training text."""
    return pay(bigrams(), tokens)
