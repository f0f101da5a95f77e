"""The optimiser track: which published rows satisfy its rule, and which step a result stands on."""

import pytest

from underpar.stats import StatsError
from underpar.stats.steps import StepsToTarget, better, steps_to_target


@pytest.mark.parametrize(
    ("steps", "mean", "runs", "passes"),
    [
        (3375, 3.2788, 20, True),
        (3250, 3.2787, 10, True),
        (2720, 3.2786, 10, True),
        (2690, 3.2783, 8, True),
        (3030, 3.2790, 30, True),
        (3600, 3.2777, 1, False),  # the earliest rows have one run, and would not pass today
        (5625, 3.2790, 1, False),
    ],
)
def test_the_published_table(steps: int, mean: float, runs: int, passes: bool) -> None:
    assert StepsToTarget(3.28, steps, (mean,) * runs).passes == passes


def test_a_result_stands_on_the_first_common_step_that_passes() -> None:
    falling = [{2675: 3.2795, 2700: 3.2785 + i / 1e5, 2725: 3.2770, 2750 + i: 3.2} for i in range(10)]
    found = steps_to_target(falling, 3.28)
    assert (found.step, found.passes, len(found.losses)) == (2700, True, 10)
    assert "10 runs pass 3.28 at step 2,700" in found.sentence()


def test_no_run_stops_where_it_likes() -> None:
    """Each run passes somewhere, but not all at one step."""
    curves = [{100: 3.26, 200: 3.31}, {100: 3.31, 200: 3.26}]
    found = steps_to_target(curves, 3.28)
    assert (found.step, found.passes) == (200, False)
    assert "do not pass 3.28 at no common validation; at the last, step 200" in found.sentence()
    with pytest.raises(StatsError, match="share no validation step"):
        steps_to_target([{100: 3.2}, {150: 3.2}], 3.28)


def test_steps_saved_are_worth_loss() -> None:
    """Result 45 against result 44: 30 steps fewer and 0.0003 better; and a claim that steps alone cannot carry."""
    new, old = StepsToTarget(3.28, 2720, (3.2786,) * 10), StepsToTarget(3.28, 2750, (3.2789,) * 20)
    assert better(new, old) == pytest.approx((0.0003 + 0.0045 * 0.3) / (1 / 10 + 1 / 20) ** 0.5)
    assert better(new, old) >= 0.004
    assert better(StepsToTarget(3.28, 2745, (3.2789,) * 10), old) < 0.004
