"""Screening: what is proven is exact, an accident falls back, and no pass is spent where another place deserves it."""

import numpy as np
import pytest

from underpar.referee.predictor import CallablePredictor
from underpar.referee.probes.screen import CHECKS, Suspect, rounds_of, screen, stride_of

from .streams import BOS, VOCAB, adaptive, box, fixed, stream

ALL = np.arange(VOCAB)


def screened(function, tokens: np.ndarray, positions: int = 40, enough: float = 1.001) -> list[Suspect]:
    return screen(box(function), tokens, positions, lambda position: ALL, enough, np.random.default_rng(3))


def lifted(tokens: np.ndarray) -> np.ndarray:
    """The fixed one, but whatever comes after 7 costs a tenth of a nat less at every other place."""
    favour = 0.1 * ((tokens[:-1] == 7) & (np.arange(len(tokens) - 1) % 2 == 0))
    return np.maximum(0.0, fixed(tokens) - favour)


def test_all_ids_of_an_honest_predictor_hold_one_but_for_the_starts_of_documents() -> None:
    tokens = stream()
    found = screened(fixed, tokens)
    start = np.exp(-np.array([fixed(np.append(tokens[: one.position], BOS).astype(np.int64))[-1] for one in found]))
    assert [one.mass for one in found] == pytest.approx((1 - start).tolist())
    assert len({one.position for one in found}) == len(found) >= 40
    assert all(tokens[one.position] != BOS for one in found)


def test_nothing_of_an_honest_predictor_is_proven_though_altered_tokens_stand_before_each_place() -> None:
    found = screened(adaptive, stream(), positions=300)
    assert max(one.proven for one in found) <= 1 + 1e-9


def test_a_rare_excess_is_proven_and_comes_first() -> None:
    tokens = stream()
    bad = set((np.flatnonzero((tokens[:-1] == 7) & (np.arange(len(tokens) - 1) % 2 == 0)) + 1).tolist())
    assert len(bad) < 0.05 * len(tokens)
    found = screened(lifted, tokens, positions=len(tokens))
    assert found[0].proven > 1.001
    assert found[0].position in bad


def test_passes_are_as_many_as_a_plan_counts() -> None:
    tokens, lengths = stream(), []
    honest = CallablePredictor(lambda t: lengths.append(len(t)) or fixed(t.astype(np.int64)), VOCAB, BOS)
    screen(honest, tokens, 100, lambda position: ALL, 1.001, np.random.default_rng(3))
    whole = rounds_of(100, len(tokens)) * (VOCAB - 1)
    assert sum(length == len(tokens) for length in lengths) == pytest.approx(whole, abs=1)
    assert len(lengths) <= whole * (1 + CHECKS) + 4


@pytest.mark.parametrize(("length", "stride"), [(1536, 64), (100, 25), (3, 1)])
def test_short_stretches_are_altered_more_densely(length: int, stride: int) -> None:
    assert stride_of(length) == stride
    assert 1 <= rounds_of(10_000, length) <= stride
