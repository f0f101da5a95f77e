"""Plans: they fit their budget, grow with it, and survive their file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.core.errors import DataError
from underpar.referee.plan import Abilities, Cost, Plan, make_plan, measure_cost, predicted_seconds, standard_plan
from underpar.referee.predictor import CallablePredictor

CAN = Abilities(100_000, 260, True, can_replay=True, can_warm_up=True, can_scale=True)
costs = st.builds(Cost, st.floats(1e-4, 5.0), st.floats(1e-7, 1e-2), st.floats(0.0, 2.0))


@given(
    budget=st.floats(0.1, 10_000), cost=costs, tokens=st.integers(16, 10**7), vocab=st.sampled_from([260, 1024, 8192])
)
def test_a_plan_fits_or_is_the_least_one(budget: float, cost: Cost, tokens: int, vocab: int) -> None:
    can = Abilities(tokens, vocab, True, can_replay=True)
    plan = make_plan(budget, cost, can)
    least = Plan(segment_tokens=min(512, tokens), canary_tokens=min(1024, tokens))
    assert plan == least or predicted_seconds(plan, cost, can) <= budget
    assert plan.segment_tokens <= tokens
    assert plan.canary_tokens <= tokens
    assert plan.world == 1
    assert not plan.warm_up


def test_more_time_buys_more_of_everything() -> None:
    cost = Cost(0.01, 1e-5)
    small, large = (make_plan(budget, cost, CAN) for budget in (5.0, 5000.0))
    assert large.flip_trials > small.flip_trials
    assert large.canary_tokens >= small.canary_tokens
    assert large.sweep_positions > small.sweep_positions
    assert large.whole_stream
    assert large.whole_flips == 2
    assert (large.swaps, large.boundaries, large.replay, large.warm_up, large.world) == (2, 2, True, True, 2)
    assert large.canaries == ("uniform", "text", "frequency")


def test_a_stepwise_predictor_is_not_flipped_much() -> None:
    stepwise = Abilities(100_000, 260, True, is_stepwise=True)
    plan = make_plan(5000.0, Cost(0.01, 1e-5), stepwise)
    assert plan.flip_trials == 1
    assert (plan.whole_flips, plan.swaps) == (0, 0)
    assert plan.sweep_positions


@given(seed=st.integers(0, 100))
def test_a_plan_survives_its_file(seed: int) -> None:
    plan = make_plan(float(seed + 1), Cost(0.01, 1e-5), CAN)
    assert Plan.from_json(plan.to_json()) == plan


def test_another_versions_plan_is_refused() -> None:
    with pytest.raises(DataError, match="leave out --plan"):
        Plan.from_json({"canaries": [], "something": 3})


def test_the_cost_of_a_pass_is_measured() -> None:
    calls: list[int] = []

    def counted(tokens: np.ndarray) -> np.ndarray:
        calls.append(len(tokens))
        return np.zeros(len(tokens) - 1)

    cost = measure_cost(CallablePredictor(counted, 260, 1), np.zeros(10_000, dtype=np.uint16), 60.0)
    assert calls == [256, 2048]
    assert cost.of(10_000) > 0


def test_the_standard_plan_asks_for_what_is_possible() -> None:
    plan = standard_plan(100, 2000, 32, Abilities(5000, 1024, False))
    assert (plan.swaps, plan.boundaries, plan.world, plan.replay) == (0, 0, 1, False)
    assert plan.sweep_ids == 1024
