"""The t-tests against published figures, against scipy, and at their edges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.stats import StatsError, compare_runs, one_sample, paired, welch

SEQ4096_BPB = [1.20143417, 1.19945102, 1.20319508]
SPEEDRUN_LOSSES = [
    [3.2779, 3.2788, 3.2791, 3.2752, 3.2752],
    [3.2784, 3.2779, 3.2784, 3.2777, 3.2780],
    [3.2804, 3.2806, 3.2786, 3.2777, 3.2776],
]
PR1736 = {42: 1.06610085, 0: 1.06473025, 1234: 1.06562743}
PR1787 = {42: 1.06400238, 0: 1.06307957, 1234: 1.06296654}

values = st.lists(st.floats(0.5, 5.0, allow_nan=False), min_size=3, max_size=12)


def test_seq4096_against_its_bar() -> None:
    test = one_sample(SEQ4096_BPB, 1.21113611)
    assert abs(test.statistic) == pytest.approx(9.04, abs=0.005)
    assert test.df == 2
    assert test.p_value == pytest.approx(0.0060, abs=5e-5)
    assert test.significant
    assert str(test).endswith("t = -9.04, df 2, one-sided p = 0.0060, significant at 0.01")


def test_speedrun_losses_pooled() -> None:
    test = one_sample([v for machine in SPEEDRUN_LOSSES for v in machine], 3.28)
    assert test.p_value == pytest.approx(1.07e-4, abs=5e-7)
    assert round(test.p_value, 4) == 0.0001
    assert test.significant


@pytest.mark.parametrize(("machine", "p"), [(0, 0.0161), (1, 8.0e-5), (2, 0.0946)])
def test_speedrun_losses_by_machine(machine: int, p: float) -> None:
    test = one_sample(SPEEDRUN_LOSSES[machine], 3.28)
    assert test.p_value == pytest.approx(p, rel=0.01)
    assert test.significant is (p < 0.01)


def test_published_welch_and_paired_of_two_records() -> None:
    comparison = compare_runs(PR1787, PR1736)
    assert comparison.welch.p_value == pytest.approx(0.0079, abs=5e-5)
    assert comparison.paired is not None
    assert comparison.paired.p_value == pytest.approx(0.0091, abs=5e-5)
    assert "significant at 0.01 (Welch)" in comparison.sentence("pr1787", "pr1736")
    assert comparison.difference == pytest.approx(-0.002137, abs=1e-6)


def test_comparison_is_unpaired_when_seeds_differ() -> None:
    comparison = compare_runs(PR1787, {1: 1.066, 2: 1.065, 3: 1.0655})
    assert comparison.paired is None
    assert comparison.to_json()["paired"] is None


@given(values, values, st.floats(-0.01, 0.01), st.sampled_from(["less", "greater", "two-sided"]))
def test_welch_equals_scipy(a: list[float], b: list[float], shift: float, side: str) -> None:
    from scipy.stats import ttest_ind

    ours = welch(a, b, shift=shift, alternative=side)  # type: ignore[arg-type]
    if not ours.is_defined or max(a) - min(a) < 1e-6 or max(b) - min(b) < 1e-6:
        return  # scipy warns about lost precision where there is next to no spread
    theirs = ttest_ind([v - shift for v in a], b, equal_var=False, alternative=side)
    assert ours.p_value == pytest.approx(float(theirs.pvalue), rel=1e-6, abs=1e-12)


@given(values)
def test_two_sided_is_twice_the_smaller_one_sided(a: list[float]) -> None:
    tests = [one_sample(a, 2.0, alternative=s).p_value for s in ("less", "greater", "two-sided")]  # type: ignore[arg-type]
    if not math.isnan(tests[0]):
        assert tests[0] + tests[1] == pytest.approx(1.0)
        assert tests[2] == pytest.approx(2 * min(tests[:2]))


@given(values, st.floats(0.001, 0.2))
def test_interval_and_two_sided_test_agree(a: list[float], alpha: float) -> None:
    test = one_sample(a, 2.0, alternative="two-sided", alpha=alpha)
    if test.is_defined and abs(test.p_value - alpha) > 1e-9:
        assert test.significant == (not test.low <= 0.0 <= test.high)


@pytest.mark.parametrize("repeated", [[1.2] * 3, [0.1] * 5, [3.2779] * 2])
def test_identical_values_are_not_significant(repeated: list[float]) -> None:
    test = one_sample(repeated, 100.0)
    assert not test.is_defined
    assert not test.significant
    assert "no spread" in str(test)
    assert test.to_json()["p_value"] is None


def test_constant_paired_difference_is_not_significant() -> None:
    assert not paired([1.1, 1.2, 1.3], [1.0, 1.1, 1.2]).significant


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: one_sample([1.0], 2.0), "1 value, at least 2 needed"),
        (lambda: one_sample([], 2.0), "0 values"),
        (lambda: one_sample([1.0, math.nan], 2.0), "value 2 is nan"),
        (lambda: welch([1.0, 2.0], [1.0]), "second set: 1 value"),
        (lambda: paired([1.0, 2.0], [1.0, 2.0, 3.0]), "use welch"),
        (lambda: one_sample([1.0, 2.0], 2.0, alpha=1.0), "alpha = 1.0"),
        (lambda: one_sample([1.0, 2.0], 2.0, alternative="lower"), "alternative = 'lower'"),  # type: ignore[arg-type]
    ],
)
def test_refusals_say_why(call: object, words: str) -> None:
    with pytest.raises(StatsError, match=words) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_a_shift_asks_for_a_minimum_effect() -> None:
    better, worse = [1.0, 1.001, 0.999, 1.0], [1.004, 1.005, 1.003, 1.004]
    assert welch(better, worse).significant
    assert not welch(better, worse, shift=-0.005).significant
