"""Seeds and margins: the published tables, and simulation."""

import numpy as np
import pytest

from underpar.stats import (
    StatsError,
    bar_readings,
    highest_passing_mean,
    margin_in_sds,
    noise_floor,
    one_sample,
    power_one_sample,
    power_welch,
    sample_sd,
    seeds_needed,
    summarise,
    welch,
)


@pytest.mark.parametrize(
    ("n", "margin"), [(3, 4.02), (4, 2.27), (5, 1.68), (6, 1.37), (8, 1.06), (10, 0.89), (15, 0.68), (20, 0.57)]
)
def test_margin_table(n: int, margin: float) -> None:
    assert round(margin_in_sds(n), 2) == margin


@pytest.mark.parametrize(
    ("n", "mean"),
    [(3, 3.27477), (4, 3.27705), (5, 3.27782), (8, 3.27862), (10, 3.27884), (15, 3.27912), (20, 3.27926)],
)
def test_highest_admissible_mean_of_the_speedrun(n: int, mean: float) -> None:
    # the published column is cut, not rounded, in its last digit
    assert highest_passing_mean(3.28, 0.0013, n) == pytest.approx(mean, abs=1e-5)


def test_the_margin_is_where_the_test_flips() -> None:
    sample = np.array([-1.0, 0.2, 0.8, -0.3, 0.3])
    sample = (sample - sample.mean()) / sample.std(ddof=1) * 0.0013
    edge = highest_passing_mean(3.28, 0.0013, 5)
    assert one_sample(sample + edge - 1e-7, 3.28).significant
    assert not one_sample(sample + edge + 1e-7, 3.28).significant


def test_power_equals_the_noncentral_t() -> None:
    from scipy.stats import nct, t

    for n, effect in ((3, 2.0), (5, 1.0), (10, 0.5), (40, 0.1)):
        expected = nct.sf(t.ppf(0.99, n - 1), n - 1, effect * n**0.5)
        assert power_one_sample(effect, 1.0, n) == pytest.approx(expected, abs=1e-4)


def test_power_without_effect_is_alpha() -> None:
    assert power_one_sample(0.0, 1.0, 6, alpha=0.05) == pytest.approx(0.05, abs=1e-4)


def test_welch_power_agrees_with_simulation() -> None:
    rng = np.random.default_rng(5)
    trials = 600
    hits = sum(welch(rng.normal(0, 1, 5), rng.normal(2, 1, 5), alpha=0.05).significant for _ in range(trials))
    assert hits / trials == pytest.approx(power_welch(2.0, 1.0, 1.0, 5, 5, alpha=0.05), abs=0.05)


def test_seeds_needed_is_the_fewest() -> None:
    n = seeds_needed(0.001, 0.0013)
    assert power_one_sample(0.001, 0.0013, n) >= 0.8 > power_one_sample(0.001, 0.0013, n - 1)


def test_seeds_needed_for_a_huge_effect_is_small() -> None:
    assert seeds_needed(1.0, 0.0001) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: seeds_needed(0.0, 1.0), "effect = 0"),
        (lambda: seeds_needed(1e-6, 1.0), "more than 1000 runs"),
        (lambda: margin_in_sds(1), "n = 1"),
        (lambda: power_one_sample(1.0, 0.0, 3), "sd = 0"),
        (lambda: noise_floor([[1.0], [2.0]]), "no group has two runs"),
        (lambda: bar_readings(0.005, 0.0), "bytes per token = 0"),
        (lambda: sample_sd([1.0]), "1 value"),
    ],
)
def test_refusals(call: object, words: str) -> None:
    with pytest.raises(StatsError, match=words):
        call()  # type: ignore[operator]


def test_noise_floor_pools_within_groups() -> None:
    floor = noise_floor([[1.0, 1.2], [5.0, 5.2], [9.0]])
    assert floor.df == 2
    assert floor.sd == pytest.approx(sample_sd([1.0, 1.2]))
    assert floor.low < floor.sd < floor.high
    assert floor.smallest_difference(8) < floor.smallest_difference(2)


@pytest.mark.parametrize(
    ("bytes_per_token", "bpb"), [(2.4359, 0.00296), (3.1572, 0.00228), (3.3197, 0.00217), (3.7266, 0.00194)]
)
def test_the_bar_in_bits_per_byte(bytes_per_token: float, bpb: float) -> None:
    readings = bar_readings(0.005, bytes_per_token)
    assert round(readings.nats_per_token, 5) == bpb
    assert round(readings.nats_per_byte, 5) == 0.00721
    assert readings.bits_per_byte == 0.005


def test_sample_not_population_sd() -> None:
    losses = [1.05989454, 1.06124613, 1.06208695]
    assert round(sample_sd(losses), 5) == 0.00111  # the published row printed the population value, 0.00090
    assert summarise(losses).low < summarise(losses).mean < summarise(losses).high
