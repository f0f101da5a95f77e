"""What a run may spend."""

import pytest

from underpar.core.budget import Budget
from underpar.core.errors import ConfigError


def test_calibration_comes_out_of_the_training_time() -> None:
    budget = Budget(train_seconds=600.0, train_steps=20_000, calibration_seconds=4.0)
    assert budget.for_steps() == Budget(train_seconds=596.0, train_steps=20_000)
    assert budget.train_seconds == 600.0


def test_without_a_limit_in_seconds_nothing_is_kept() -> None:
    budget = Budget(train_steps=100, calibration_seconds=4.0)
    assert budget.for_steps() is budget


def test_a_reserve_that_leaves_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"calibration_seconds = 600 leaves nothing of train_seconds = 600"):
        Budget(train_seconds=600.0, calibration_seconds=600.0).frozen()


def test_a_budget_without_a_training_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match="no training limit"):
        Budget(eval_seconds=60.0).frozen()
