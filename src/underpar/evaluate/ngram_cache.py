"""A document's own n-grams, mixed into what the model predicts: a cache of what followed the same few tokens before."""

import math
import time

import numpy as np

from underpar.data.validation import ValStream
from underpar.evaluate.adaptation import CacheOnly, NgramCache
from underpar.evaluate.adapted import AdaptedCharges, Parts, Watcher, check_documents
from underpar.evaluate.score import batch_tokens_on, charge

AGREEMENTS, COUNTS = 4, 10
"""Classes that a mixing weight is learnt for: how far the followers agree, and how many there are, by powers of two."""


class NgramMixer:
    """Mixes a cache into the charges of a text. Reads its settings when it is made."""

    def __init__(self, cache: NgramCache) -> None:
        self._orders, self._start, self._rate = tuple(cache.orders), cache.start, cache.rate
        self._most, self._decay = cache.most, cache.decay

    def charges(self, nats: np.ndarray, stream: ValStream) -> np.ndarray:
        """Nats of every target when the cache is mixed in, (N - 1,) float64.

        For each n of `orders`, from the shortest on, the last `most` tokens of the document that followed the same n tokens
        are a distribution, each weighing `decay` times as much as the one after it; p becomes (1 - w) p + w q. The weight w
        is a sigmoid of a number for each order and class of the followers, never of the target, and learns from every target
        after it has been charged, across documents and in their order. All candidates of a place share one list of
        followers, so that probabilities that sum to one still do.

        nats: (N - 1,) of the model. Returns new nats; deterministic, on one thread. Cost: about half a second for a million
        targets once compiled. Source: the cache model (Kuhn and De Mori, 1990) over several orders, with weights that learn.
        """
        from underpar.evaluate.ngram_mixing import mix

        starts = np.append(stream.document_starts, len(stream.tokens)).astype(np.int64)
        tokens = stream.tokens.astype(np.int64)
        weights = np.full((len(self._orders), COUNTS, AGREEMENTS), self._start)
        nats = np.asarray(nats, dtype=np.float64)
        return mix(nats, tokens, starts, np.array(self._orders), weights, self._rate, self._most, self._decay)

    def prepare(self) -> float:
        """Compiles what `charges` runs; returns the seconds that a target then takes, on text of fifty words at random."""
        tokens = np.random.default_rng(0).integers(0, 50, 20_001).astype(np.uint16)
        stream = ValStream(tokens, np.ones(len(tokens), np.int32), np.zeros(1, np.int64))
        nats = np.full(len(tokens) - 1, math.log(50))
        self.charges(nats[:10], ValStream(tokens[:11], stream.byte_counts[:11], stream.document_starts))
        began = time.perf_counter()
        self.charges(nats, stream)
        return (time.perf_counter() - began) / len(nats)


class CachedScorer:
    """An `AdaptiveScorer` for CacheOnly."""

    def __init__(self, adaptation: CacheOnly, parts: Parts) -> None:
        self._window, self._mixer, self._parts = adaptation.window, NgramMixer(adaptation.cache), parts

    def charge(
        self, stream: ValStream, *, budget_seconds: float | None = None, watcher: Watcher | None = None
    ) -> AdaptedCharges:
        """As `AdaptiveScorer.charge`, but nothing is left out for a budget: without the cache it would take as long."""
        check_documents(stream)
        world = self._parts.world
        began = time.perf_counter()
        a_target = self._mixer.prepare()
        ready = time.perf_counter()
        nats = charge(
            self._parts.plain, stream, self._window, bos_id=self._parts.bos_id, world=world,
            batch_tokens=batch_tokens_on(world.device),
        )  # fmt: skip
        nats = self._mixer.charges(nats, stream)
        taken = time.perf_counter() - ready
        return AdaptedCharges(nats, taken, ready - began, a_target * len(nats), {"cached target": a_target}, 0)
