"""The wager: an honest predictor is never accused, small advantages are, and q is known exactly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.core.errors import ScoreError
from underpar.referee.predictor import CallablePredictor
from underpar.referee.probes.canary import EVIDENCE_BITS, STAKES, SUM_SLACK, evidence_bits, purses, run_canary
from underpar.referee.probes.canary_text import CanaryText, frequency_canary, text_canary, uniform_canary

from .streams import BOS, VOCAB, adaptive, box, fixed, stream, table


def texts(tokens: np.ndarray, seed: int = 3) -> list[CanaryText]:
    counts = np.bincount(tokens, minlength=VOCAB)
    return [
        uniform_canary(tokens, counts, BOS, seed),
        frequency_canary(tokens, counts, BOS, seed),
        text_canary(tokens, tokens, counts, BOS, seed),
    ]


@pytest.mark.parametrize("honest", [fixed, adaptive])
def test_honest_predictors_are_not_accused(honest) -> None:
    for text in texts(stream(3000)):
        assert run_canary(box(honest), text).evidence_bits < 10


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), sharpness=st.floats(0.0, 6.0))
def test_no_honest_predictor_is_accused_whatever_it_is_sure_of(seed: int, sharpness: float) -> None:
    p = table(seed, sharpness)
    honest = box(lambda tokens: -np.log(p[tokens[:-1], tokens[1:]]))
    for text in texts(stream(500, seed), seed):
        assert run_canary(honest, text).evidence_bits < EVIDENCE_BITS


def test_the_predictor_that_is_q_sits_on_its_entropy() -> None:
    for text in texts(stream(2000)):
        exact = CallablePredictor(lambda tokens, text=text: text.surprise, VOCAB, BOS)
        found = run_canary(exact, text)
        assert found.mean_excess_nats == 0.0
        assert found.mean_nats == pytest.approx(text.surprise[text.drawn].mean())
        assert -4 < found.evidence_bits < 0


def test_a_small_advantage_under_a_large_spread_is_found_by_a_small_stake() -> None:
    """Every probability 20 % too large, on top of a model that pays far more than the entropy: the bits saved say nothing."""
    tokens = stream(20_000)
    bold = table(1, 1.5)
    text = texts(tokens)[0]
    honest, cheat = (
        run_canary(box(lambda t, f=f: -np.log(np.minimum(1.0, f * bold[t[:-1], t[1:]]))), text) for f in (1.0, 1.2)
    )
    assert honest.saved_bits < -1000
    assert cheat.saved_bits < -1000
    assert honest.evidence_bits < 0
    assert cheat.evidence_bits > EVIDENCE_BITS
    assert honest.hidden_gain_nats < math.log(1.2)


def test_what_would_have_been_seen_is_seen_and_a_little_less_is_not() -> None:
    tokens = stream(5000)
    text = texts(tokens)[0]
    gain = run_canary(box(fixed), text).hidden_gain_nats
    above, below = (
        run_canary(box(lambda t, g=g: np.maximum(fixed(t) - g, 0)), text) for g in (1.01 * gain, 0.9 * gain)
    )
    assert above.evidence_bits >= EVIDENCE_BITS > below.evidence_bits


def test_a_small_saving_accuses_nobody() -> None:
    """A wager on luck: 39 bits of evidence accuse nobody, 41 do."""
    text = texts(stream(200))[0]
    count = int(text.drawn.sum())
    shares = math.log2(len(STAKES))
    for bits, is_accused in ((39.0, False), (41.0, True)):
        gain = (bits + shares) * math.log(2) / count + math.log1p(SUM_SLACK)
        lucky = CallablePredictor(lambda tokens, gain=gain: text.surprise - gain * text.drawn, VOCAB, BOS)
        purse = purses(np.full(count, -gain))
        assert (evidence_bits(purse) >= EVIDENCE_BITS) == is_accused or purse[0] < max(purse)
        assert run_canary(lucky, text).saved_bits == pytest.approx(gain * count / math.log(2))


def test_an_infinite_charge_is_a_loss_and_no_error() -> None:
    def certain(tokens: np.ndarray) -> np.ndarray:
        return np.where(tokens[1:] == 5, 0.0, np.inf)

    found = run_canary(box(certain), texts(stream(400))[0])
    assert found.evidence_bits < 0
    assert math.isfinite(found.mean_nats)


def test_a_missing_tail_is_left_out() -> None:
    text = texts(stream(400))[0]
    short = CallablePredictor(lambda tokens: fixed(tokens.astype(np.int64)), VOCAB, BOS)

    class Tailless:
        vocab_size, bos_id = VOCAB, BOS

        def charges(self, tokens: np.ndarray) -> np.ndarray:
            charges = short.charges(tokens)
            charges[-50:] = np.nan
            return charges

    assert run_canary(Tailless(), text).tokens == int(text.drawn[:-50].sum())


@given(seed=st.integers(0, 2**32 - 1))
def test_a_canary_keeps_the_places_of_bos_and_draws_only_what_occurs(seed: int) -> None:
    tokens = stream(300, seed)
    tokens[tokens == 7] = 8
    for text in texts(tokens, seed):
        assert np.array_equal(text.tokens == BOS, tokens == BOS)
        assert np.array_equal(text.drawn, tokens[1:] != BOS)
        assert set(np.unique(text.tokens)) <= set(np.unique(tokens))
        assert np.all(text.surprise[text.drawn] > 0)


def test_frequencies_and_entropies_are_what_they_should_be() -> None:
    counts = np.zeros(VOCAB)
    counts[[7, 9]] = (3, 1)
    found = frequency_canary(stream(4000), counts, BOS, seed=0)
    assert found.entropy_nats == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert (found.tokens == 7).sum() / found.drawn.sum() == pytest.approx(0.75, abs=0.03)
    assert uniform_canary(stream(100), counts, BOS, seed=0).entropy_nats == pytest.approx(math.log(2))


def test_the_text_canary_is_drawn_from_the_distribution_that_it_says() -> None:
    """Over many draws the mean of 1 / q over the support is its size: E[1/q] = number of possible tokens."""
    tokens = stream(300, document=10**6)
    counts = np.bincount(tokens, minlength=VOCAB)
    ratios = []
    for seed in range(300):
        text = text_canary(tokens[:4], tokens, counts, BOS, seed)
        ratios.append(np.exp(text.surprise[text.drawn]))
    support = np.count_nonzero(counts[1:])
    assert np.concatenate(ratios).mean() == pytest.approx(support, rel=0.25)


def test_text_that_looks_like_text_is_cheaper_for_whoever_knows_the_text() -> None:
    tokens = stream(4000)
    uniform, _, like = (run_canary(box(adaptive), text) for text in texts(tokens))
    assert like.mean_nats < uniform.mean_nats - 0.5


def test_a_canary_of_nothing_is_refused() -> None:
    with pytest.raises(ScoreError, match="no ordinary token"):
        uniform_canary(np.full(10, BOS, dtype=np.uint16), np.array([10]), BOS, seed=0)


def test_a_stream_without_bos_is_drawn_whole() -> None:
    tokens = stream(100) + 1
    text = uniform_canary(tokens, np.bincount(tokens), None, seed=0)
    assert text.drawn.all()
