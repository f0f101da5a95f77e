"""The flip: what moves is found and where, what is only noise is not, and one that is honest cannot be accused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.referee.probes.flip import Trial, difference, flip_positions, future_flip, tolerance

from .streams import adaptive, box, fixed, stream


def moved(found) -> list[Trial]:
    return [trial for trial in found.trials if trial.moved]


def whole_text_mean(tokens: np.ndarray) -> np.ndarray:
    """A cheat: every charge knows the mean of the text."""
    return fixed(tokens) + 0.01 * tokens.mean()


def looks_ahead(tokens: np.ndarray) -> np.ndarray:
    """A cheat: a charge knows the token behind its target."""
    return fixed(tokens) + 0.01 * np.append(tokens[2:], 0)


@pytest.mark.parametrize("honest", [fixed, adaptive])
def test_honest_predictors_do_not_move(honest) -> None:
    found = future_flip(box(honest), stream(), seed=1, trials=10)
    assert not moved(found)
    assert found.noise_nats == 0.0
    assert len(found.trials) == 20
    assert {trial.kind for trial in found.trials} == {"token", "text", "random"}


def test_state_of_the_whole_text_moves_everything_before() -> None:
    for trial in moved(future_flip(box(whole_text_mean), stream(), seed=1, trials=4)):
        assert trial.moved == trial.position - 1
        assert trial.first_moved == 1
        assert trial.last_moved == trial.position - 1


def test_a_look_ahead_moves_what_is_right_before() -> None:
    for trial in moved(future_flip(box(looks_ahead), stream(), seed=1, trials=6)):
        assert trial.first_moved == trial.last_moved == trial.position - 1


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-7, 1e-4, 0.1]), spike=st.booleans())
def test_a_noisy_honest_predictor_is_not_accused(seed: int, scale: float, spike: bool) -> None:
    """Also one whose noise is a rare spike, which two runs on the same text may not show."""
    generator = np.random.default_rng(seed)

    def noisy(tokens: np.ndarray) -> np.ndarray:
        noise = generator.normal(0, scale, len(tokens) - 1)
        if spike:
            noise += (generator.random(len(tokens) - 1) < 1e-3) * 0.5
        return np.maximum(fixed(tokens) + noise, 0)

    assert not moved(future_flip(box(noisy), stream(300), seed, trials=4))


def test_a_cheat_under_noise_is_found_when_it_is_larger() -> None:
    generator = np.random.default_rng(0)

    def noisy_cheat(tokens: np.ndarray) -> np.ndarray:
        return whole_text_mean(tokens) * 10 + generator.normal(0, 1e-4, len(tokens) - 1)

    found = future_flip(box(noisy_cheat), stream(300), 0, trials=4)
    assert found.noise_nats > 1e-5
    assert moved(found)


@given(length=st.integers(3, 5000), trials=st.integers(1, 30), seed=st.integers(0, 10**6))
def test_positions_are_distinct_inside_and_begin_with_the_last(length: int, trials: int, seed: int) -> None:
    found = flip_positions(length, trials, np.random.default_rng(seed))
    assert found[0] == length - 1
    assert len(set(found)) == len(found) <= trials
    assert all(2 <= position < length for position in found)


def test_infinite_charges_are_equal_and_uncharged_ones_are_left_out() -> None:
    one = np.array([np.inf, 1.0, np.nan, np.inf])
    other = np.array([np.inf, 1.5, 2.0, 1.0])
    assert difference(one, other).tolist() == [0.0, 0.5, 0.0, np.inf]


def test_the_tolerance_follows_the_noise() -> None:
    assert tolerance(0.0) == 1e-5
    assert tolerance(0.1) == pytest.approx(0.4)


def test_a_copy_that_is_followed_word_by_word_is_lost_by_one_altered_token() -> None:
    stored = stream()

    def remembers(tokens: np.ndarray) -> np.ndarray:
        charges = fixed(tokens)
        same = np.flatnonzero(tokens != stored[: len(tokens)])
        charges[: same[0] - 1 if len(same) else len(charges)] = 1e-3
        return charges

    rises = [
        trial.later_rise for trial in future_flip(box(remembers), stored, 1, 6).trials if trial.later_rise is not None
    ]
    assert min(rises) > 5
    honest = [
        trial.later_rise for trial in future_flip(box(fixed), stored, 1, 6).trials if trial.later_rise is not None
    ]
    assert max(map(abs, honest)) < 0.05


@pytest.mark.parametrize("trust", [0.001, 0.1])
def test_a_copy_used_with_restraint_makes_every_later_token_dearer(trust: float) -> None:
    stored = stream()
    copy = stored.astype(np.int64)

    def remembers(tokens: np.ndarray) -> np.ndarray:
        fits = np.cumprod(tokens[:-1] == copy[: len(tokens) - 1]) * trust
        return -np.log((1 - fits) * np.exp(-adaptive(tokens)) + fits * (tokens[1:] == copy[1 : len(tokens)]))

    for function, low, high in ((remembers, 0.8, 1.0), (adaptive, 0.0, 0.5), (fixed, 0.0, 0.0)):
        trials = future_flip(box(function), stored, 1, 12).trials
        dearer = sorted(trial.later_dearer for trial in trials if trial.later_dearer is not None)
        assert len(dearer) >= 4
        assert low <= dearer[len(dearer) // 2] <= high
