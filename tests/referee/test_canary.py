"""The black-box probes against predictors that cheat, and against honest twins that differ as little as possible."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from underpar.core.errors import ScoreError
from underpar.data.context import Context
from underpar.evaluate.windows import Flat, Sliding
from underpar.referee.canary import CanaryText, frequency_canary, run_canary, uniform_canary
from underpar.referee.predictor import WindowedPredictor
from underpar.referee.probes import flip_segment_tokens, future_flip, sweep_prefix_tokens, target_sweep

VOCAB = 260
BOS = 1
WINDOW = Sliding(context=64, stride=32).frozen()


def layout(tokens: int = 4096, seed: int = 5) -> np.ndarray:
    """A stream of ids with a BOS now and then."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(4, VOCAB, size=tokens).astype(np.uint16)
    ids[generator.random(tokens) < 0.01] = BOS
    ids[0] = BOS
    return ids


def predictor(losses_of, window=WINDOW) -> WindowedPredictor:
    return WindowedPredictor(losses_of, window, VOCAB, BOS)


def bigram_logits(tokens: Tensor) -> Tensor:
    """(B, T, V) of a fixed predictor that looks at the current token only."""
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0))
    return table[tokens]


def honest_bigram(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
    return torch.nn.functional.cross_entropy(bigram_logits(tokens).transpose(1, 2), targets, reduction="none")


def uniform(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
    return torch.full(targets.shape, math.log(VOCAB))


def peeks_at_target(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
    """A logit boost for the token that is about to be charged."""
    boost = 12.0 * torch.nn.functional.one_hot(targets, VOCAB)
    logits = bigram_logits(tokens) + boost
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def unnormalised(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
    """Every probability times 1.05."""
    return (honest_bigram(tokens, targets, ctx) - math.log(1.05)).clamp_min(0)


def peeks_one_ahead(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
    """A proper distribution that is sharpened by the token after the one it predicts."""
    later = torch.roll(tokens, -2, dims=1).float().unsqueeze(-1) / VOCAB
    return torch.nn.functional.cross_entropy(
        (bigram_logits(tokens) * (1 + later)).transpose(1, 2), targets, reduction="none"
    )


def test_an_honest_predictor_passes_every_probe() -> None:
    box = predictor(honest_bigram)
    tokens = layout()
    assert run_canary(box, uniform_canary(tokens, VOCAB, BOS, seed=1)).passed
    assert run_canary(box, frequency_canary(tokens, np.bincount(tokens, minlength=VOCAB), BOS, seed=2)).passed
    assert future_flip(box, tokens[:200], seed=3, trials=4).passed
    assert target_sweep(box, tokens[:40]).passed


def test_the_uniform_predictor_sits_on_the_entropy_and_is_not_accused() -> None:
    found = run_canary(predictor(uniform), uniform_canary(layout(), VOCAB, BOS, seed=1))
    assert found.passed
    assert found.mean_nats == pytest.approx(math.log(VOCAB), abs=1e-5)
    assert found.entropy_nats == pytest.approx(math.log(VOCAB - 1))


def test_a_predictor_that_sees_its_target_is_caught_by_both_canaries_and_the_sweep() -> None:
    box, tokens = predictor(peeks_at_target), layout()
    for text in (
        uniform_canary(tokens, VOCAB, BOS, seed=1),
        frequency_canary(tokens, np.bincount(tokens, minlength=VOCAB), BOS, seed=2),
    ):
        found = run_canary(box, text)
        assert not found.passed
        assert found.saved_bits > 1000
        assert found.chance_log2 == -found.saved_bits
    assert not target_sweep(box, tokens[:40]).passed


def test_probabilities_that_sum_to_more_than_one_are_caught_by_the_sweep() -> None:
    found = target_sweep(predictor(unnormalised), layout()[:40])
    assert not found.passed
    assert found.least_sum == pytest.approx(1.05, abs=1e-4)


def test_a_uniform_predictor_with_inflated_probabilities_fails_the_canary() -> None:
    def inflated(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
        return uniform(tokens, targets, ctx) - 0.02

    found = run_canary(predictor(inflated), uniform_canary(layout(), VOCAB, BOS, seed=1))
    assert not found.passed
    assert found.saved_bits == pytest.approx(found.tokens * (0.02 - math.log(260 / 259)) / math.log(2), rel=1e-3)


def test_a_leak_from_the_future_is_caught_by_the_flip_though_its_distributions_sum_to_one() -> None:
    box, tokens = predictor(peeks_one_ahead), layout()
    assert target_sweep(box, tokens[:40]).passed
    found = future_flip(box, tokens[:200], seed=3, trials=6)
    assert not found.passed
    assert found.worst_position in found.positions
    assert found.noise_nats == 0.0


def test_a_predictor_whose_noise_is_larger_than_the_tolerance_is_held_to_its_noise() -> None:
    generator = torch.Generator().manual_seed(1)

    def noisy(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
        return honest_bigram(tokens, targets, ctx) + 1e-4 * torch.rand(targets.shape, generator=generator)

    found = future_flip(predictor(noisy), layout()[:200], seed=3, trials=2)
    assert found.noise_nats > 1e-5
    assert found.passed


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sharpness=st.floats(0.0, 8.0))
def test_no_honest_predictor_is_accused(seed: int, sharpness: float) -> None:
    """Bigram predictors from flat to very sure of themselves, over random texts."""

    def sharp(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
        logits = sharpness * bigram_logits(tokens)
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")

    tokens = layout(600, seed)
    counts = np.bincount(tokens, minlength=VOCAB)
    assert run_canary(predictor(sharp), uniform_canary(tokens, VOCAB, BOS, seed)).passed
    assert run_canary(predictor(sharp), frequency_canary(tokens, counts, BOS, seed)).passed


@given(seed=st.integers(0, 2**32 - 1))
def test_a_canary_keeps_the_places_of_bos_and_draws_no_other(seed: int) -> None:
    tokens = layout(300, seed)
    text = uniform_canary(tokens, VOCAB, BOS, seed)
    assert np.array_equal(text.tokens == BOS, tokens == BOS)
    assert np.array_equal(text.drawn, tokens[1:] != BOS)
    assert text.surprise[text.drawn] == pytest.approx(math.log(VOCAB - 1))


def test_a_frequency_canary_draws_only_what_occurs_and_knows_its_entropy() -> None:
    counts = np.zeros(VOCAB)
    counts[[7, 9]] = (3, 1)
    text = frequency_canary(layout(2000), counts, BOS, seed=0)
    assert set(np.unique(text.tokens)) == {BOS, 7, 9}
    assert text.entropy_nats == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


def test_a_canary_of_nothing_is_refused() -> None:
    with pytest.raises(ScoreError, match="no ordinary token"):
        uniform_canary(np.full(10, BOS, dtype=np.uint16), VOCAB, BOS, seed=0)


def test_a_small_saving_accuses_nobody() -> None:
    """39 bits may be luck once in 2^39 trials: below the limit, although far outside four standard errors."""
    tokens = layout(100)
    text = uniform_canary(tokens, VOCAB, BOS, seed=0)
    count = int(text.drawn.sum())

    class Lucky:
        vocab_size, bos_id = VOCAB, BOS

        def __init__(self, saved_bits: float) -> None:
            self.gain = saved_bits * math.log(2) / count

        def charges(self, stream: np.ndarray) -> np.ndarray:
            return text.surprise - self.gain * text.drawn

    assert isinstance(text, CanaryText)
    assert run_canary(Lucky(39.0), text).passed
    assert not run_canary(Lucky(41.0), text).passed


def test_charges_are_in_stream_order_and_equal_the_loss_function() -> None:
    tokens = layout(300)
    charges = predictor(honest_bigram, Flat(context=50).frozen()).charges(tokens)
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    direct = honest_bigram(ids[:, :-1], ids[:, 1:], None)[0].double().numpy()
    np.testing.assert_allclose(charges, direct, rtol=1e-6)


def test_segments_and_sweeps_stay_affordable() -> None:
    assert flip_segment_tokens(Flat(context=1024).frozen(), 10**6) == 3 * 1024 + 1
    assert flip_segment_tokens(Sliding(context=1024, stride=64).frozen(), 10**6) == 1024 + 2 * 64 + 1
    assert flip_segment_tokens(Flat(context=1024).frozen(), 700) == 700
    assert sweep_prefix_tokens(1024, 1024) == 32
    assert sweep_prefix_tokens(8192, 1024) == 4
    assert sweep_prefix_tokens(65536, 1024) == 2
