"""Predictions against what was measured."""

import json
from pathlib import Path

import pytest

from underpar.core.world import World
from underpar.lab import plan
from underpar.lab.plan import make_plan
from underpar.recipes import registry

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


def test_the_first_limit_decides_the_duration() -> None:
    config = registry.resolve("golf/baseline", overrides=["budget.train_steps=7", "budget.train_seconds=None"]).config
    found = make_plan(config, World())
    assert found.train_steps == 7
    assert found.train_tokens == 7 * 524_288
