"""Factors of machines: their error, their use and their end."""

import numpy as np
import pytest

from underpar.stats import StatsError
from underpar.stats.calibration import Calibration, calibrate

BOARD = 92.4  # 1.540 min


def made(seconds: tuple[float, ...] = (92.950, 92.945, 93.052)) -> Calibration:
    return calibrate("a", "c1", "speedrun/record67", {f"r{i}": s for i, s in enumerate(seconds)}, BOARD, day=100.0)


def test_a_factor_brings_the_anchors_to_the_reference() -> None:
    found = made()
    assert found.factor == pytest.approx(BOARD / np.mean([92.950, 92.945, 93.052]))
    assert found.apply([92.950, 92.945, 93.052]).mean == pytest.approx(BOARD)


def test_a_slow_machine_and_a_fast_one_agree_on_one_recipe() -> None:
    rng = np.random.default_rng(1)
    for slowness in (0.9, 1.3):
        anchors = tuple(100 * slowness * (1 + rng.normal(0, 0.002, 8)))
        times = 95 * slowness * (1 + rng.normal(0, 0.002, 8))
        found = calibrate("m", "c", "r", {str(i): s for i, s in enumerate(anchors)}, 100.0, 0.0).apply(list(times))
        assert found.low < 95 < found.high
        assert found.high - found.low < 1.0


def test_the_interval_covers_with_the_error_of_the_factor_in_it() -> None:
    """Without the factor's error three anchors would make 95 % intervals that cover far less."""
    rng = np.random.default_rng(2)
    covered = covered_without = 0
    rounds = 400
    for _ in range(rounds):
        anchors, times = 100 + rng.normal(0, 1, 3), 95 + rng.normal(0, 1, 12)
        found = calibrate("m", "c", "r", {str(i): s for i, s in enumerate(anchors)}, 100.0, 0.0).apply(list(times))
        covered += found.low < 95 < found.high
        covered_without += found.raw.low * found.factor < 95 < found.raw.high * found.factor
    assert covered / rounds > 0.93
    assert covered_without / rounds < 0.85


def test_a_calibration_ends() -> None:
    found = made()
    assert found.why_expired("c1", 103.0) is None
    assert "has changed" in str(found.why_expired("c2", 103.0))
    assert "8.0 days old" in str(found.why_expired("c1", 108.0))
    assert found.why_expired("c1", 103.0, [92.98, 92.97]) is None
    assert "drifted by" in str(found.why_expired("c1", 103.0, [95.0, 95.1, 95.05]))


def test_one_anchor_is_a_guess() -> None:
    with pytest.raises(StatsError, match="at least 2 are needed"):
        calibrate("m", "c", "r", {"a": 92.0}, BOARD, 0.0)
    with pytest.raises(StatsError, match="must be positive"):
        calibrate("m", "c", "r", {"a": 92.0, "b": 93.0}, 0.0, 0.0)


def test_what_is_shown_says_what_it_is_for() -> None:
    text = str(made().apply([93.0, 93.2, 93.1]))
    assert "no official time" in text
    assert "raw 93.100 s" in text
