"""Predictions against what was measured."""

import json
from pathlib import Path

import pytest

from underpar.core.world import World
from underpar.lab import plan
from underpar.lab.plan import make_plan
from underpar.recipes import Recipe, registry

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def test_parameters_are_exact_and_bytes_within_five_per_cent_of_a_trained_model() -> None:
    """A golf-mini run of the baseline on one H200, its figures kept in benchmarks/results."""
    measured = json.loads((RESULTS / "h200_golf_mini_baseline.json").read_text())
    found = make_plan(registry.resolve("golf/baseline", track="golf-mini").config, World())
    assert found.params == measured["train"]["params"]
    assert found.container_bytes == pytest.approx(measured["artifact"]["container_bytes"], rel=0.05)


@pytest.mark.parametrize("name", ["golf_baseline", "golf_seq4096"])
def test_memory_is_near_the_measured_peak(name: str) -> None:
    measured = json.loads((RESULTS / f"h200_{name}.json").read_text())
    config = registry.resolve(measured["recipe"]).config
    params = make_plan(config, World()).params
    predicted = plan._memory(config, params, World(device="cuda:0"))
    assert predicted == pytest.approx(measured["step"]["peak_memory_bytes"], rel=0.25)


def test_what_is_exceeded_is_said() -> None:
    config = registry.resolve("golf/baseline", overrides=["model.num_layers=12"]).config
    found = make_plan(config, World())
    assert any(text.startswith("artifact_bytes") and "over" in text for text in found.exceeded)


def test_a_machine_on_which_not_one_step_fits_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "matmul_flops_per_second", lambda device, dtype: 1e9)
    config = registry.resolve("quickstart", overrides=["budget.train_seconds=1"]).config
    slow = make_plan(config, World())
    assert slow.train_steps == 1
    assert any("about 1 step," in line for line in slow.lines())
    assert any(text.startswith("train_seconds: one step alone takes") for text in slow.exceeded)
    monkeypatch.setattr(plan, "matmul_flops_per_second", lambda device, dtype: 1e12)
    assert make_plan(config, World()).exceeded == ()


def test_the_first_limit_decides_the_duration() -> None:
    config = registry.resolve("golf/baseline", overrides=["budget.train_steps=7", "budget.train_seconds=None"]).config
    found = make_plan(config, World())
    assert found.train_steps == 7
    assert found.train_tokens == 7 * 524_288


def config_of(name: str, *overrides: str) -> Recipe:
    return registry.resolve(name, overrides=overrides).config


def test_memory_counts_executions_and_the_average() -> None:
    cuda = World(device="cuda:0")
    straight = plan._memory(config_of("golf/gated_skips"), 0, cuda)
    looped = plan._memory(config_of("golf/recurrence"), 0, cuda)
    logits = 3 * 98_304 * 2 * 2 * 8192  # three spans a micro-batch; logits and their gradient in bfloat16
    assert (looped - logits) / (straight - logits) == pytest.approx(17 / 11)
    plain, averaged = (plan._memory(config_of(name), 1_000, cuda) for name in ("golf/muoneq_r", "golf/ema"))
    assert averaged - plain == 4_000


def test_a_packed_row_is_not_cut_below_a_span() -> None:
    cuda = World(device="cuda:0")
    whole, small = (
        plan._memory(config_of("golf/packed", f"train.micro_batch_tokens={micro}"), 0, cuda)
        for micro in (98_304, 1_000)
    )
    assert whole == small


@pytest.mark.parametrize("limit", ["train_steps=1000", "train_tokens=786432000", "train_seconds=1000"])
def test_time_before_and_after_the_switch_is_counted_by_its_own_speed(limit: str) -> None:
    """A third of the run without the extra passes; the flops of a token then are between those of the two phases."""
    none = ["budget.train_steps=None", "budget.train_tokens=None", "budget.train_seconds=None"]
    base = [text for text in none if not text.startswith(f"budget.{limit.partition('=')[0]}=")] + [f"budget.{limit}"]
    found = {
        switch: plan._duration(config_of("golf/recurrence", *base, f"schedule.recurrence={switch}"), 4e14)
        for switch in ("Never", "FromFraction(fraction=0.35)", "Always")
    }
    never, some, always = found.values()
    if limit.startswith("train_seconds"):
        assert never.steps > some.steps > always.steps
        for duration in found.values():
            assert 990 < duration.seconds <= 1000
    else:
        assert never.steps == some.steps == always.steps == 1000
        assert never.seconds < some.seconds < always.seconds
        share = (always.seconds - some.seconds) / (always.seconds - never.seconds)
        assert share == pytest.approx(0.35, abs=0.01)
    for duration in found.values():
        assert duration.flops == pytest.approx(duration.seconds * 4e14)
