"""The probes on loss functions behind a window, as our own artifacts are: honest ones and some that are not."""

import numpy as np
import pytest
import torch
from torch import Tensor

from underpar.data.context import Context
from underpar.evaluate.windows import Documents, Flat, Sliding
from underpar.referee.measure import segment_tokens
from underpar.referee.probes.canary import EVIDENCE_BITS, run_canary
from underpar.referee.probes.canary_text import frequency_canary, uniform_canary
from underpar.referee.probes.flip import future_flip
from underpar.referee.probes.process import warm_up, world_size
from underpar.referee.probes.sweep import SUM_TOLERANCE, sweep_prefix_tokens, target_sweep
from underpar.referee.windowed import WindowedPredictor

VOCAB, BOS = 260, 1
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


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def honest_bigram(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
    return losses(bigram_logits(tokens), targets)


def peeks_at_target(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
    """A logit boost for the token that is about to be charged."""
    return losses(bigram_logits(tokens) + 12.0 * torch.nn.functional.one_hot(targets, VOCAB), targets)


def peeks_one_ahead(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
    """A proper distribution that is sharpened by the token after the one it predicts."""
    later = torch.roll(tokens, -2, dims=1).float().unsqueeze(-1) / VOCAB
    return losses(bigram_logits(tokens) * (1 + later), targets)


def sums(box: WindowedPredictor, tokens: np.ndarray) -> np.ndarray:
    return np.array(target_sweep(box, tokens).sums)


def evidence(box: WindowedPredictor, tokens: np.ndarray) -> list[float]:
    counts = np.bincount(tokens, minlength=VOCAB)
    texts = uniform_canary(tokens, counts, BOS, 1), frequency_canary(tokens, counts, BOS, 2)
    return [run_canary(box, text).evidence_bits for text in texts]


@pytest.mark.parametrize("window", [WINDOW, Flat(context=50).frozen(), Documents(context=64).frozen()])
def test_an_honest_model_passes_every_probe(window) -> None:
    box, tokens = predictor(honest_bigram, window), layout()
    assert max(evidence(box, tokens)) < EVIDENCE_BITS
    found = future_flip(box, tokens[:300], seed=3, trials=6)
    assert found.noise_nats == 0.0
    assert not [trial for trial in found.trials if trial.moved]
    assert np.abs(sums(box, tokens[:40]) - 1).max() < 1e-5


def test_a_model_that_sees_its_target_is_caught_by_both_canaries_and_the_sweep() -> None:
    box, tokens = predictor(peeks_at_target), layout()
    assert min(evidence(box, tokens)) > 1000
    assert sums(box, tokens[:40]).min() > 2


def test_a_leak_from_the_future_is_caught_by_the_flip_though_its_distributions_sum_to_one() -> None:
    box, tokens = predictor(peeks_one_ahead), layout()
    assert np.abs(sums(box, tokens[:40]) - 1).max() < SUM_TOLERANCE
    found = future_flip(box, tokens[:200], seed=3, trials=6)
    moved = [trial for trial in found.trials if trial.moved]
    assert moved
    assert all(trial.last_moved == trial.position - 1 for trial in moved if trial.kind == "token")


def test_charges_are_in_stream_order_and_equal_the_loss_function() -> None:
    tokens = layout(300)
    charges = predictor(honest_bigram, Flat(context=50).frozen()).charges(tokens)
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    direct = honest_bigram(ids[:, :-1], ids[:, 1:], None)[0].double().numpy()
    np.testing.assert_allclose(charges, direct, rtol=1e-6)


def test_ranks_that_share_the_work_give_the_charges_of_one() -> None:
    box, tokens = predictor(honest_bigram), layout(1000)
    found = world_size(box, tokens, 0.0, processes=3)
    assert found.largest_change_nats == 0.0
    assert found.total_nats > 0


def test_a_model_that_keeps_something_of_what_it_scored_first_is_found() -> None:
    seen: list[float] = []

    def stateful(tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
        seen.append(float(tokens.float().mean()))
        return honest_bigram(tokens, targets, ctx) + 1e-3 * np.mean(seen)

    assert warm_up(predictor(honest_bigram), layout(300), 0.0, seed=1).largest_change_nats == 0.0
    assert warm_up(predictor(stateful), layout(300), 0.0, seed=1).largest_change_nats > 1e-4


def test_segments_and_sweeps_stay_affordable() -> None:
    assert segment_tokens(Flat(context=1024).frozen(), 10**6) == 3 * 1024 + 1
    assert segment_tokens(Sliding(context=1024, stride=64).frozen(), 10**6) == 1024 + 2 * 64 + 1
    assert segment_tokens(Flat(context=1024).frozen(), 700) == 700
    assert sweep_prefix_tokens(1024, 1024) == 32
    assert sweep_prefix_tokens(8192, 1024) == 4
    assert sweep_prefix_tokens(65536, 1024) == 2
