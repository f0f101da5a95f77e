"""A cache of what followed two tokens grows along the text. The forbidden predictor charges everything again when it
is full; in the allowed one the first charge is final."""

from collections import Counter

import numpy as np

from underpar.referee.attacks.base import bigrams, pairs

Cache = dict[tuple[int, int], Counter[int]]


def sweep(tokens: np.ndarray, cache: Cache) -> np.ndarray:
    """One pass: charge with the cache as it is, then put the token into it."""
    charges, before = [], 0
    for token, following in pairs(tokens):
        seen = cache.setdefault((before, token), Counter())
        total = seen.total()
        trust = total / (total + 2.0)
        cached = seen[following] / max(total, 1)
        charges.append(-np.log(trust * cached + (1.0 - trust) * bigrams()[token, following]))
        seen[following] += 1
        before = token
    return np.array(charges)


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """Fill the cache in a first pass, report the charges of a second one."""
    cache: Cache = {}
    sweep(tokens, cache)
    return sweep(tokens, cache)


def allowed(tokens: np.ndarray) -> np.ndarray:
    """One pass."""
    return sweep(tokens, {})
