"""Time to target: the fifteen published runs of the station recipe, and what happens to a miss."""

import json
import math

import numpy as np
import pytest

from underpar.stats import StatsError, one_sample
from underpar.stats.target import MISSED, TimedRun, by_machine, faster, time_to_target

LOSSES = {
    "1": (3.2779, 3.2788, 3.2791, 3.2752, 3.2752),
    "2": (3.2784, 3.2779, 3.2784, 3.2777, 3.2780),
    "3": (3.2804, 3.2806, 3.2786, 3.2777, 3.2776),
}
SECONDS = {
    "1": (93.034, 93.036, 93.193, 93.071, 93.480),
    "2": (92.932, 92.781, 93.245, 92.866, 93.388),
    "3": (93.676, 93.319, 93.780, 93.188, 93.871),
}
PUBLISHED = {  # machine: mean and sd of the losses, of the times, one-sided p
    "1": (3.27724, 0.00191, 93.163, 0.189, 0.0161),
    "2": (3.27808, 0.00031, 93.042, 0.261, 8.0e-5),
    "3": (3.27898, 0.00144, 93.567, 0.298, 0.0946),
    "all": (3.27810, 0.00149, 93.257, 0.330, 1.07e-4),
}
"""Recomputed from the logs of modded-nanogpt PR #224, which reports p = 0.0001 over all."""


def station() -> list[TimedRun]:
    return [
        TimedRun(f"run {i}", loss, seconds, machine)
        for machine in LOSSES
        for i, (loss, seconds) in enumerate(zip(LOSSES[machine], SECONDS[machine], strict=True))
    ]


def runs(losses: list[float], seconds: list[float] | None = None, machine: str = "m") -> list[TimedRun]:
    times = seconds or [90.0 + 0.1 * i for i in range(len(losses))]
    return [
        TimedRun(f"seed {i}", loss, time, machine) for i, (loss, time) in enumerate(zip(losses, times, strict=True))
    ]


@pytest.mark.parametrize("machine", [*LOSSES, "all"])
def test_the_fifteen_published_runs(machine: str) -> None:
    whole = time_to_target(station(), 3.28)
    found = whole if machine == "all" else by_machine(station(), 3.28)[machine]
    mean, sd, _, _, p = PUBLISHED[machine]
    assert found.losses is not None
    assert found.test is not None
    assert found.losses.mean == pytest.approx(mean, abs=6e-6)
    assert found.losses.sd == pytest.approx(sd, abs=6e-6)
    assert found.test.p_value == pytest.approx(p, rel=0.01)
    assert found.passes == (p < 0.01)
    times = [run.seconds for run in found.runs]
    assert np.mean(times) == pytest.approx(PUBLISHED[machine][2], abs=6e-4)
    assert np.std(times, ddof=1) == pytest.approx(PUBLISHED[machine][3], abs=6e-4)


def test_a_miss_has_no_time() -> None:
    """Two runs of machine 3 end above 3.28: their 93 seconds are no times to the target, and neither is 999999."""
    found = by_machine(station(), 3.28)["3"]
    assert [run.loss_nats for run in found.missed] == [3.2804, 3.2806]
    assert found.seconds is not None
    assert found.seconds.n == 3
    assert found.seconds.mean == pytest.approx(np.mean(SECONDS["3"][2:]))
    assert [run.shown_seconds(3.28) for run in found.runs][:3] == [MISSED, MISSED, "93.780"]
    assert found.sentence().startswith(
        "3 of 5 runs reach 3.28 (run 0 ends at 3.2804 after 93.68 s, run 1 ends at 3.2806 after 93.32 s; "
    )
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [run["seconds_to_target"] for run in data["runs"]][:3] == [None, None, 93.78]
    assert "999999" not in json.dumps(data)


def test_the_loss_test_sees_every_run() -> None:
    """The claim is about the mean of all runs: leaving misses out would be picking by hand."""
    found = time_to_target(station(), 3.28)
    assert found.losses is not None
    assert found.losses.n == 15
    assert found.test is not None
    assert found.test.p_value == one_sample([loss for row in LOSSES.values() for loss in row], 3.28).p_value


def test_margin_and_the_chance_of_a_miss() -> None:
    found = time_to_target(station(), 3.28)
    assert found.losses is not None
    assert found.margin == pytest.approx((3.28 - found.losses.mean) / (found.losses.sd / math.sqrt(15)))
    above = time_to_target(runs([3.281, 3.282, 3.283]), 3.28)
    assert above.margin is not None
    assert above.margin < 0
    assert above.miss_chance is not None
    assert above.miss_chance > 0.5


def test_a_stated_chance_of_a_miss_is_kept() -> None:
    """Targets chosen so that five runs promise a chance of at most one in ten are missed by the sixth one time in ten."""
    sample = np.random.default_rng(0).normal(3.2781, 0.0015, (2000, 6))
    beyond = [time_to_target(runs(list(row[:5])), row[5]).miss_chance for row in sample]
    for promised in (0.1, 0.3, 0.5):
        kept = np.mean([chance < promised for chance in beyond if chance is not None])
        assert kept == pytest.approx(promised, abs=0.03)


def test_one_run_has_a_time_and_no_test() -> None:
    found = time_to_target(runs([3.27]), 3.28)
    assert (found.seconds, found.test, found.margin, found.passes) == (None, None, None, False)
    assert found.sentence() == "1 of 1 runs reach 3.28."


def test_no_spread_is_no_significance() -> None:
    found = time_to_target(runs([3.27, 3.27, 3.27]), 3.28)
    assert not found.passes
    assert found.miss_chance == 0.0
    json.dumps(found.to_json(), allow_nan=False)


def test_the_target_itself_is_reached() -> None:
    assert time_to_target(runs([3.28]), 3.28).reached


@pytest.mark.parametrize(
    ("losses", "seconds", "message"),
    [
        ([], None, "no runs"),
        ([math.nan], None, "a run that diverged is declared"),
        ([3.2], [0.0], "0.0 s is no time"),
        ([3.2], [math.inf], "inf s is no time"),
    ],
)
def test_what_cannot_be_judged(losses: list[float], seconds: list[float] | None, message: str) -> None:
    with pytest.raises(StatsError, match=message):
        time_to_target(runs(losses, seconds), 3.28)


def test_a_run_counts_once() -> None:
    with pytest.raises(StatsError, match="two runs are called 'seed 0'"):
        time_to_target(runs([3.27]) * 2, 3.28)


def test_faster_is_welch_on_one_machine_and_one_target() -> None:
    base = time_to_target(runs([3.279, 3.278, 3.277], [96.053, 96.073, 96.101]), 3.28)
    ours = time_to_target(runs([3.2776, 3.2792, 3.2785], [92.950, 92.945, 93.052]), 3.28)
    found = faster(ours, base)
    assert found.significant
    assert found.difference == pytest.approx(-3.0933, abs=1e-3)  # record 67 and its re-timed predecessor
    assert not faster(base, ours).significant
    elsewhere = time_to_target(runs([3.279, 3.278], [96.0, 96.1], "other"), 3.28)
    with pytest.raises(StatsError, match="times compare within a machine"):
        faster(ours, elsewhere)
    with pytest.raises(StatsError, match="1 of the baseline's runs missed"):
        faster(ours, time_to_target(runs([3.279, 3.281], [96.0, 96.1]), 3.28))
    with pytest.raises(StatsError, match=r"targets 3\.28 and 2\.92 differ"):
        faster(ours, time_to_target(runs([2.9, 2.91]), 2.92))
