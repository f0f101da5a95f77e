"""The n-gram cache: what it computes, that it stays a distribution, and that it only looks back."""

import math

import numpy as np
import pytest
from ttt_jobs import documents, small_model, small_stream

from support import BOS
from underpar.core.errors import ConfigError
from underpar.data.validation import ValStream
from underpar.evaluate.adaptation import Adaptation, AdapterAdamW, CacheOnly, LongestFirst, NgramCache
from underpar.evaluate.ngram_cache import AGREEMENTS, COUNTS, NgramMixer
from underpar.evaluate.score import charge
from underpar.evaluate.scorers import adapted_charges, adaptive_scorer
from underpar.evaluate.windows import Sliding
from underpar.lab.adaptive import chosen_adaptation

WORDS = 12


def text(seed: int = 0, size: int = 400) -> ValStream:
    """Three documents of few words that repeat themselves; 0 begins each."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, WORDS, size).astype(np.uint16)
    tokens[size // 2 : size // 2 + 60] = tokens[size // 4 : size // 4 + 60]
    starts = np.array([0, size // 8, size - size // 8])
    tokens[starts] = 0
    return ValStream(tokens, (tokens > 0).astype(np.int32), starts)


def uneven(stream: ValStream, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 4.0, len(stream.tokens) - 1)


def by_hand(cache: NgramCache, nats: np.ndarray, stream: ValStream) -> np.ndarray:
    """The same by its definition, with lists."""
    tokens, out = stream.tokens.tolist(), []
    logits = np.full((len(cache.orders), COUNTS, AGREEMENTS), cache.start)
    for at in range(len(nats)):
        begin = int(stream.document_starts[stream.document_starts <= at].max())
        p, target = math.exp(-nats[at]), tokens[at + 1]
        for k, n in enumerate(cache.orders):
            if at + 1 - begin < n:
                continue
            context = tokens[at + 1 - n : at + 1]
            ends = [e for e in range(at - 1, begin + n - 2, -1) if tokens[e + 1 - n : e + 1] == context][: cache.most]
            if not ends:
                continue
            shares = np.array([cache.decay**i for i in range(len(ends))])
            followers = np.array([tokens[e + 1] for e in ends])
            q = shares[followers == target].sum() / shares.sum()
            agreement = shares[followers == followers[0]].sum() / shares.sum()
            c = min(len(ends).bit_length() - 1, COUNTS - 1)
            a = 0 if (followers == followers[0]).all() else 1 if agreement > 0.5 else 2 if agreement > 0.2 else 3
            w = 1 / (1 + math.exp(-logits[k, c, a]))
            mixed = (1 - w) * p + w * q
            logits[k, c, a] += cache.rate * w * (1 - w) * (q - p) / mixed
            p = mixed
        out.append(-math.log(p))
    return np.array(out)


@pytest.mark.parametrize(
    "changes", [{}, {"orders": (1, 3), "most": 2, "decay": 1.0, "rate": 0.1, "start": -1.0}], ids=str
)
def test_it_is_what_its_definition_says(changes) -> None:
    cache, stream = NgramCache(**changes), text()
    nats = uneven(stream)
    found = NgramMixer(cache).charges(nats, stream)
    np.testing.assert_allclose(found, by_hand(cache, nats, stream), rtol=1e-9)
    assert abs(found - nats).max() > 0.1


def test_probabilities_still_sum_to_one() -> None:
    """Every id in place of the target, at many places, under a model that finds some ids likelier than others."""
    stream, cache = text(), NgramCache(start=-1.0)
    chances = np.random.default_rng(5).dirichlet(np.ones(WORDS), len(stream.tokens) - 1)
    for at in range(40, len(stream.tokens) - 1, 13):
        total = 0.0
        for word in range(WORDS):
            tokens = stream.tokens.copy()
            tokens[at + 1] = word
            nats = -np.log(chances[np.arange(len(chances)), tokens[1:]])
            altered = ValStream(tokens, stream.byte_counts, stream.document_starts)
            total += math.exp(-NgramMixer(cache).charges(nats, altered)[at])
        assert total == pytest.approx(1.0, abs=1e-9)


def test_what_comes_later_changes_nothing() -> None:
    stream, cache, middle = text(), NgramCache(), 211
    other = text(seed=9)
    tokens = np.where(np.arange(len(stream.tokens)) <= middle, stream.tokens, other.tokens)
    nats = uneven(stream)
    altered = NgramMixer(cache).charges(nats, ValStream(tokens, stream.byte_counts, stream.document_starts))
    assert np.array_equal(altered[:middle], NgramMixer(cache).charges(nats, stream)[:middle])


def test_what_repeats_becomes_cheap_and_what_does_not_costs_little_more() -> None:
    rng = np.random.default_rng(2)
    phrase = rng.integers(1, 5000, 300)
    fresh = np.concatenate([[0], rng.permutation(20_000)[:900] + 1])
    repeated = np.concatenate([[0], phrase, phrase, phrase])
    found = []
    for tokens in (fresh, repeated):
        stream = ValStream(tokens.astype(np.uint16), np.ones(len(tokens), np.int32), np.zeros(1, np.int64))
        nats = np.full(len(tokens) - 1, 5.0)
        found.append(float((NgramMixer(NgramCache()).charges(nats, stream) - nats).mean()))
    assert 0 <= found[0] < 0.01
    assert found[1] < -1.5


def test_a_document_knows_nothing_of_the_one_before() -> None:
    """Only the weights carry over; with a rate of zero, nothing does."""
    tokens = np.array([0, *range(1, 60), 0, *range(1, 60)], dtype=np.uint16)
    stream = ValStream(tokens, np.ones(len(tokens), np.int32), np.array([0, 60]))
    nats = uneven(stream)
    assert np.array_equal(NgramMixer(NgramCache(rate=0.0)).charges(nats, stream), -np.log(np.exp(-nats)))


def charged(adaptation: Adaptation, stream: ValStream) -> np.ndarray:
    return adapted_charges(adaptive_scorer(adaptation, small_model(), bos_id=BOS), stream.tokens, bos_id=BOS)


def test_scoring_by_documents_mixes_it_in_last() -> None:
    stream, cache = small_stream(), NgramCache(orders=(1, 2))
    settings = {"optimiser": AdapterAdamW(lr=0.01)}
    plain = charged(documents(**settings), stream)
    mixed = charged(documents(cache=cache, **settings), stream)
    assert np.array_equal(mixed, NgramMixer(cache).charges(plain, stream))
    assert not np.array_equal(mixed, plain)


def test_alone_it_is_mixed_into_the_charges_through_the_window() -> None:
    stream, cache, window = small_stream(), NgramCache(orders=(1, 2)), Sliding(context=32, stride=16)
    plain = charge(small_model(), stream, window, bos_id=BOS)
    found = charged(CacheOnly(cache=cache, window=window), stream)
    np.testing.assert_allclose(found, NgramMixer(cache).charges(plain, stream), rtol=0, atol=2e-5)


def test_a_mode_of_scoring_keeps_the_artifacts_window() -> None:
    chosen = chosen_adaptation(None, "cached", ["cache.rate=0.5"], Sliding(context=32, stride=16))
    assert isinstance(chosen, CacheOnly)
    assert (chosen.reach(), chosen.cache.rate) == (Sliding(context=32, stride=16), 0.5)


def test_a_plan_counts_its_seconds() -> None:
    scorer = adaptive_scorer(documents(cache=NgramCache()), small_model(), bos_id=BOS)
    found = scorer.charge(small_stream(), budget_seconds=1000.0)
    assert found.measured_seconds["cached target"] > 0


@pytest.mark.parametrize("orders", [(), (3, 2), (2, 2)], ids=str)
def test_orders_must_rise(orders: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="must rise"):
        NgramCache(orders=orders).frozen()


def test_it_goes_with_the_order_of_the_text_alone() -> None:
    with pytest.raises(ConfigError, match="LongestFirst"):
        documents(cache=NgramCache(), order=LongestFirst()).frozen()
