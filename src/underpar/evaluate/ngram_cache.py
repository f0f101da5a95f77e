"""A document's own n-grams, mixed into what the model predicts: a cache of what followed the same few tokens before."""

import math
import time

import numpy as np

from underpar.data.validation import ValStream
from underpar.evaluate.adaptation import NgramCache

AGREEMENTS, COUNTS = 4, 10
"""Classes that a mixing weight is learnt for: how far the followers agree, and how many there are, by powers of two."""


def cached_charges(cache: NgramCache, nats: np.ndarray, stream: ValStream) -> np.ndarray:
    """Nats of every target when the cache is mixed in, (N - 1,) float64.

    For each n of `orders`, from the shortest on, the last `most` tokens of the document that followed the same n tokens are a
    distribution, each weighing `decay` times as much as the one after it; p becomes (1 - w) p + w q. The weight w is a sigmoid
    of a number for each order and class of the followers, never of the target, and learns from every target after it has
    been charged, across documents and in their order. All candidates of a place share one list of followers, so that
    probabilities that sum to one still do.

    nats: (N - 1,) of the model. Returns new nats; deterministic, on one thread. Cost: some 2 s for a million targets once
    compiled. Source: the cache model (Kuhn and De Mori, 1990) over several orders, with weights that learn.
    """
    from underpar.evaluate.ngram_mixing import mix

    starts = np.append(stream.document_starts, len(stream.tokens)).astype(np.int64)
    tokens = stream.tokens.astype(np.int64)
    weights = np.full((len(cache.orders), COUNTS, AGREEMENTS), cache.start)
    return mix(
        nats.astype(np.float64), tokens, starts, np.array(cache.orders), weights, cache.rate, cache.most, cache.decay
    )


def cache_seconds(cache: NgramCache) -> float:
    """Compiles what `cached_charges` runs; returns the seconds that a target then takes, on text of fifty words at random."""
    tokens = np.random.default_rng(0).integers(0, 50, 20_001).astype(np.uint16)
    stream = ValStream(tokens, np.ones(len(tokens), np.int32), np.zeros(1, np.int64))
    nats = np.full(len(tokens) - 1, math.log(50))
    cached_charges(cache, nats[:10], ValStream(tokens[:11], stream.byte_counts[:11], stream.document_starts))
    began = time.perf_counter()
    cached_charges(cache, nats, stream)
    return (time.perf_counter() - began) / len(nats)
