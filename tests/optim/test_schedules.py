"""Schedules are pure functions of progress, equal to the published formulas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.core.budget import Budget
from underpar.core.errors import ConfigError
from underpar.core.phase import Phase
from underpar.optim.schedules import (
    Always,
    BelowRate,
    ConstantDecay,
    ConstantRate,
    DecayFollowsRate,
    DecayTaper,
    FromFraction,
    MomentumWarmup,
    Never,
    Progress,
    Schedule,
    Switch,
    WarmdownFraction,
    WarmdownSteps,
    fraction_done,
    remaining_steps,
)


def at_step(step: int, step_seconds: float = 0.05, step_tokens: int = 100) -> Progress:
    return Progress(step, step * step_tokens, step * step_seconds)


@pytest.mark.parametrize(
    ("step", "scale"),
    [(0, 1.0), (18_800, 1.0), (18_801, 1199 / 1200), (19_400, 0.5), (19_999, 1 / 1200), (20_000, 0.0)],
)
def test_warmdown_over_the_last_steps_of_a_step_budget(step: int, scale: float) -> None:
    budget = Budget(train_steps=20_000)
    assert WarmdownSteps(steps=1200).scale(at_step(step), budget) == pytest.approx(scale, abs=1e-12)


@given(st.integers(1, 20_000), st.floats(0.001, 0.5), st.sampled_from([1200, 3000, 7]))
def test_warmdown_under_a_time_limit_is_the_published_formula(step: int, step_seconds: float, warmdown: int) -> None:
    """step_ms = elapsed / step; W = warmdown * step_ms; remaining = cap - elapsed; remaining / W where that is below 1."""
    cap, elapsed = 600.0, step * step_seconds
    wanted = min(1.0, max(0.0, cap - elapsed) / (warmdown * (elapsed / step)))
    found = WarmdownSteps(steps=warmdown).scale(at_step(step, step_seconds), Budget(train_seconds=cap))
    assert found == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    ("elapsed", "step", "scale"),
    [
        (0.0, 0, 1.0),
        (547.8, 12_450, 1.0),  # 44 ms a step: 1200 steps are 52.8 s, of which 52.2 s are left
        (573.6, 13_036, 0.5),
        (600.0, 13_636, 0.0),
        (612.0, 13_900, 0.0),
    ],
)
def test_warmdown_by_seconds_by_hand(elapsed: float, step: int, scale: float) -> None:
    found = WarmdownSteps(steps=1200).scale(Progress(step, 0, elapsed), Budget(train_seconds=600.0))
    assert found == pytest.approx(scale, abs=0.013)


def test_warmdown_by_tokens() -> None:
    budget = Budget(train_tokens=100_000)
    schedule = WarmdownSteps(steps=100)
    assert [schedule.scale(at_step(s), budget) for s in (0, 900, 950, 1000)] == [1.0, 1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("fraction_used", "scale"),
    [(0.0, 1.0), (0.2499, 1.0), (0.25, 1.0), (0.625, 0.5), (0.925, 0.1), (0.99, 0.1), (1.0, 0.1)],
)
@pytest.mark.parametrize("limit", ["train_steps", "train_tokens", "train_seconds"])
def test_warmdown_over_a_fraction_with_a_floor(fraction_used: float, scale: float, limit: str) -> None:
    budget = Budget(**{limit: 10_000})
    used = round(fraction_used * 10_000)
    progress = Progress(used, used, float(used))
    assert WarmdownFraction(fraction=0.75, floor=0.10).scale(progress, budget) == pytest.approx(scale, abs=1e-12)


@pytest.mark.parametrize(
    ("fraction", "floor", "points"),
    [
        (0.75, 0.0, {0.0: 1.0, 0.25: 1.0, 0.625: 0.5, 0.925: 0.1, 1.0: 0.0}),
        (0.85, 0.10, {0.0: 1.0, 0.1499: 1.0, 0.15: 1.0, 0.575: 0.5, 0.9149: 0.0851 / 0.85, 0.916: 0.1, 1.0: 0.1}),
        (0.3, 0.0, {0.7: 1.0}),  # where 1 - 0.7 is more than 0.3
    ],
)
def test_warmdown_fractions_of_the_late_line(fraction: float, floor: float, points: dict[float, float]) -> None:
    """The time limit of the late recipes is the cap less the seconds that are kept for calibration."""
    budget = Budget(train_seconds=596.0)
    for done, scale in points.items():
        found = WarmdownFraction(fraction=fraction, floor=floor).scale(Progress(1, 0, 596.0 * done), budget)
        assert found == pytest.approx(scale, abs=1e-12)
        assert found <= 1.0


def test_the_limit_that_ends_first_decides() -> None:
    budget = Budget(train_steps=1_000, train_tokens=1_000_000, train_seconds=10.0)
    assert fraction_done(Progress(100, 100, 5.0), budget) == 0.5
    assert fraction_done(Progress(900, 100, 5.0), budget) == 0.9
    assert fraction_done(Progress(900, 2_000_000, 5.0), budget) == 1.0
    assert remaining_steps(Progress(100, 100, 5.0), budget) == 100
    assert remaining_steps(Progress(990, 100, 5.0), budget) == 10


@pytest.mark.parametrize(
    ("start", "final", "steps", "points"),
    [
        (0.85, 0.95, 500, {0: 0.85, 250: 0.90, 500: 0.95, 9_999: 0.95}),
        (0.92, 0.99, 1500, {0: 0.92, 750: 0.955, 1500: 0.99}),
        (0.85, 0.95, 0, {0: 0.95}),
    ],
)
def test_momentum_warms_up_linearly(start: float, final: float, steps: int, points: dict[int, float]) -> None:
    momentum = MomentumWarmup(start=start, final=final, steps=steps)
    for step, value in points.items():
        assert momentum.at(Progress(step, 0, 0.0), Budget(train_steps=10_000)) == pytest.approx(value, abs=1e-12)


@given(
    st.integers(0, 3_000), st.sampled_from([ConstantRate(), WarmdownSteps(steps=300), WarmdownFraction(fraction=0.4)])
)
def test_schedule_stays_in_bounds_and_never_rises(step: int, rate: object) -> None:
    schedule = Schedule(learning_rate=rate)  # type: ignore[arg-type]
    budget = Budget(train_steps=2_000)
    now, then = schedule.at(at_step(step), budget), schedule.at(at_step(step + 1), budget)
    assert 0.0 <= then.lr_scale <= now.lr_scale <= 1.0
    assert 0.85 <= now.momentum <= then.momentum <= 0.95


def test_settings_depend_on_progress_alone() -> None:
    schedule, budget = Schedule(), Budget(train_seconds=60.0)
    late = schedule.at(Progress(900, 0, 59.0), budget)
    schedule.at(Progress(0, 0, 0.0), budget)
    assert schedule.at(Progress(900, 0, 59.0), budget) == late


def test_a_budget_without_training_limit_and_an_empty_warmdown_are_refused() -> None:
    with pytest.raises(ConfigError, match="no training limit"):
        Budget(eval_seconds=3.0).frozen()
    with pytest.raises(ConfigError, match="use ConstantRate"):
        WarmdownFraction(fraction=0.0).frozen()


# ------------------------------------------------------------------------------------------------- decay and switches


def test_weight_decay_of_matrices_tapers_over_the_last_part() -> None:
    budget, taper = Budget(train_steps=1_000), DecayTaper(start=0.70, final=0.5)
    found = {step: taper.matrix_scale(at_step(step), budget) for step in (0, 700, 775, 850, 1_000)}
    assert found == pytest.approx({0: 1.0, 700: 1.0, 775: 0.875, 850: 0.75, 1_000: 0.5})
    settings = Schedule(weight_decay=taper).at(at_step(850), budget)
    assert (settings.decay_scale, settings.matrix_decay_scale) == (1.0, pytest.approx(0.75))
    constant = Schedule(weight_decay=ConstantDecay()).at(at_step(999), budget)
    assert (constant.decay_scale, constant.matrix_decay_scale) == (1.0, 1.0)
    with pytest.raises(ConfigError, match="use ConstantDecay"):
        DecayTaper(start=1.0).frozen()


def test_weight_decay_can_follow_the_rate() -> None:
    budget = Budget(train_steps=1_000)
    schedule = Schedule(learning_rate=WarmdownSteps(steps=100), weight_decay=DecayFollowsRate())
    for step in (0, 899, 950, 999):
        settings = schedule.at(at_step(step), budget)
        assert settings.decay_scale == settings.lr_scale
        assert settings.matrix_decay_scale == 1.0
    assert schedule.at(at_step(950), budget).decay_scale == pytest.approx(0.5)


def test_momentum_of_the_speedrun_warms_up_and_cools_down() -> None:
    """The published values: 0.85 -> 0.95 over 300 steps, back over the last 50 of 1,555."""
    momentum, budget = MomentumWarmup(start=0.85, final=0.95, steps=300, cooldown_steps=50), Budget(train_steps=1_555)
    published = {0: 0.85, 150: 0.90, 300: 0.95, 1505: 0.95, 1530: 0.90, 1555: 0.85}
    assert {step: momentum.at(at_step(step), budget) for step in published} == pytest.approx(published)


def test_settings_know_their_step() -> None:
    assert Schedule().at(at_step(17), Budget(train_steps=100)).step == 17


def test_recurrence_begins_at_its_fraction_and_stays() -> None:
    schedule, budget = Schedule(recurrence=FromFraction(fraction=0.35)), Budget(train_steps=1_000)
    looped = [schedule.at(at_step(step), budget).phase.looped for step in range(1_001)]
    assert looped == [False] * 350 + [True] * 651


def test_fake_quantisation_begins_below_its_rate() -> None:
    """The rate falls below 0.15 when less than 15 % of the warm-down are left."""
    budget = Budget(train_steps=1_000)
    schedule = Schedule(learning_rate=WarmdownSteps(steps=100), fake_quantise=BelowRate(lr_scale=0.15))
    quantised = [schedule.at(at_step(step), budget).phase.quantised for step in range(1_000)]
    assert quantised == [False] * 986 + [True] * 14


@pytest.mark.parametrize(
    ("recurrence", "fake_quantise", "phases"),
    [
        (Always(), Never(), {(True, False)}),
        (FromFraction(), Never(), {(False, False), (True, False)}),
        (Never(), BelowRate(), {(False, False), (False, True)}),
        (FromFraction(), BelowRate(), {(False, False), (False, True), (True, False), (True, True)}),
    ],
)
def test_every_phase_of_a_run_is_foreseen(recurrence: Switch, fake_quantise: Switch, phases: set[Phase]) -> None:
    schedule = Schedule(recurrence=recurrence, fake_quantise=fake_quantise, learning_rate=WarmdownSteps(steps=300))
    foreseen = [settings.phase[:2] for settings in schedule.kinds(Budget(train_steps=1_000))]
    assert set(foreseen) == phases
    assert len(foreseen) == len(phases)
    met = {schedule.at(at_step(step), Budget(train_steps=1_000)).phase[:2] for step in range(1_000)}
    assert met <= set(foreseen)
