"""A table of counts under hashes of context and target. The forbidden predictor looks up the token that came and
nobody else, so that collisions make everything likely; the allowed one looks up all of them and divides by their
sum."""

import numpy as np

from underpar.referee.attacks.base import VOCAB_SIZE, bigrams

SLOTS = 512
ALL = np.arange(VOCAB_SIZE)


def slot(context: int, target: np.ndarray | int) -> np.ndarray | int:
    """Where the count of a target after a context lies; many share a slot."""
    return (context * 36_313 ^ target * 27_191) % SLOTS


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """p = count of (context, target) over count of context, blended in for the realised token alone."""
    full, contexts, charges = np.zeros(SLOTS), np.zeros(SLOTS), []
    for place in range(1, len(tokens)):
        context = int(tokens[max(0, place - 2)]) * 257 + int(tokens[place - 1])
        token, where = int(tokens[place]), slot(context, int(tokens[place]))
        cached = min(1.0, full[where] / max(contexts[context % SLOTS], 1.0))
        charges.append(-np.log(0.3 * cached + 0.7 * bigrams()[tokens[place - 1], token]))
        full[where] += 1.0
        contexts[context % SLOTS] += 1.0
    return np.array(charges)


def allowed(tokens: np.ndarray) -> np.ndarray:
    """The same counts for every token of the vocabulary, normalised, then blended."""
    full, charges = np.zeros(SLOTS), []
    for place in range(1, len(tokens)):
        context = int(tokens[max(0, place - 2)]) * 257 + int(tokens[place - 1])
        token, cached = int(tokens[place]), full[slot(context, ALL)] + 0.01
        cached = cached / cached.sum()
        charges.append(-np.log(0.3 * cached[token] + 0.7 * bigrams()[tokens[place - 1], token]))
        full[slot(context, token)] += 1.0
    return np.array(charges)
