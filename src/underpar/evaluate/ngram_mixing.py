"""The compiled half of the n-gram cache."""

import numpy as np
from numba import njit, types
from numba.typed import Dict

LARGEST = 700.0
"""Nats whose probability a float64 still holds."""
SPREAD, STEP = np.int64(6364136223846793005), np.int64(1442695040888963407)
"""Of a linear congruential generator (Knuth's MMIX): one step for each token of a context."""


@njit(nogil=True)
def _context(tokens, at, order):
    """A number for the `order` tokens that end at `at`. Two contexts that share one would only share their followers."""
    number = np.int64(order)
    for back in range(order):
        number = number * SPREAD + tokens[at - back] + STEP
        number ^= number >> 29
    return number


@njit(nogil=True)
def mix(nats, tokens, starts, orders, weights, rate, most, decay):
    """See `NgramMixer.charges`. tokens, starts: int64, `starts` with the end of the text behind.

    weights: float64 logits (orders, counts, agreements), which learn in place.
    """
    targets = len(nats)
    out = np.empty(targets)
    latest = Dict.empty(types.int64, types.int64)  # context -> the last place in this document where it ended
    before = np.full((len(orders), targets), -1)  # that place -> the one before it
    keys = np.zeros(len(orders), np.int64)
    document = 0
    for at in range(targets):
        while starts[document + 1] <= at:
            document += 1
            latest.clear()
        reach, target = at + 1 - starts[document], tokens[at + 1]
        p = np.exp(-min(nats[at], LARGEST))
        for k in range(len(orders)):
            if reach < orders[k]:
                continue
            keys[k] = _context(tokens, at, orders[k])
            if keys[k] not in latest:
                continue
            place = latest[keys[k]]
            newest = tokens[place + 1]
            share, hits, agreeing, all_of_them, found = 1.0, 0.0, 0.0, 0.0, 0
            while place >= 0 and found < most:
                follower = tokens[place + 1]
                hits += share * (follower == target)
                agreeing += share * (follower == newest)
                all_of_them += share
                share *= decay
                found += 1
                place = before[k, place]
            q, agreement = hits / all_of_them, agreeing / all_of_them
            agreement_class = 0 if agreement == 1.0 else 1 if agreement > 0.5 else 2 if agreement > 0.2 else 3
            count_class = 0
            while found > 1 and count_class < weights.shape[1] - 1:
                found >>= 1
                count_class += 1
            logit = weights[k, count_class, agreement_class]
            w = 1.0 / (1.0 + np.exp(-logit))
            mixed = (1.0 - w) * p + w * q
            weights[k, count_class, agreement_class] = logit + rate * w * (1.0 - w) * (q - p) / mixed
            p = mixed
        out[at] = -np.log(p)
        for k in range(len(orders)):
            if reach >= orders[k]:
                if keys[k] in latest:
                    before[k, at] = latest[keys[k]]
                latest[keys[k]] = at
    return out
