"""Adam of the speedrun against its formula in float64, step for step."""

import numpy as np
import torch
from matrices import gradients, named, relative, step, weights

from underpar.core.world import World
from underpar.optim.schedules import Settings
from underpar.optim.sharded_adam import ShardedAdam


def reference(p: np.ndarray, g: np.ndarray, state: dict[str, np.ndarray], lr: float, decay: float) -> np.ndarray:
    b1, b2 = 0.75, 0.95
    state["t"] = state.get("t", 0) + 1
    state["m"] = b1 * state.get("m", 0.0) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0.0) + (1 - b2) * g * g
    size = lr * np.sqrt(1 - b2 ** state["t"]) / (1 - b1 ** state["t"])
    update = size * state["m"] / (np.sqrt(state["v"]) + 1e-10)
    update = update + lr * decay * (update * p > 0) * p
    return p - update


def test_equal_to_the_formula_in_float64() -> None:
    params = weights()
    params[4].data[2] = 0.0  # at exactly zero nothing decays
    exact = [p.detach().double().numpy() for p in params]
    states: list[dict[str, np.ndarray]] = [{} for _ in params]
    group = ShardedAdam(lr=0.6, beta1=0.75, beta2=0.95, weight_decay=0.03).build(named(params), World())
    for number, grads in zip(range(5), gradients(21), strict=False):
        settings = Settings(1 - number / 10, momentum=0.0, decay_scale=1 - number / 10)
        step(group, grads, settings)
        group.finish()
        lr, decay = 0.6 * settings.lr_scale, 0.03 * settings.decay_scale
        exact = [reference(p, g.double().numpy(), s, lr, decay) for p, g, s in zip(exact, grads, states, strict=True)]
    for param, wanted in zip(params, exact, strict=True):
        assert relative(param, wanted) < 1e-6


def test_moments_of_a_bfloat16_table_are_float32() -> None:
    table = torch.nn.Parameter(torch.ones(300, 300, dtype=torch.bfloat16))  # large enough to travel alone
    group = ShardedAdam(lr=0.01).build({"table": table}, World())
    assert len(group.buckets) == 1
    step(group, [torch.full_like(table, 0.5)], Settings(1.0, 0.0))
    group.finish()
    assert {t.dtype for t in group.state_tensors().values()} == {torch.float32}
    assert torch.equal(table, torch.full_like(table, 0.99))  # one step of Adam is lr long


def test_steps_that_are_not_due_are_known_by_their_number() -> None:
    every = ShardedAdam(every=2)
    assert [every.is_due(Settings(1.0, 0.9, step=s)) for s in range(6)] == [False, True] * 3
    assert (every.period, ShardedAdam().period) == (2, 1)
    assert all(ShardedAdam().is_due(Settings(1.0, 0.9, step=s)) for s in range(3))
