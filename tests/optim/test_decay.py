"""Cautious decay and weights in two halves, against the published formulas in float64."""

import numpy as np
import pytest
import torch
from matrices import gradients, named, relative, step, weights

from underpar.core.errors import ConfigError
from underpar.core.world import World
from underpar.optim.decay import CautiousDecay
from underpar.optim.mantissa import Mantissa, merge, split
from underpar.optim.muon import Muon
from underpar.optim.schedules import Settings
from underpar.optim.sided_normuon import SidedNorMuon

STEPS = 6


def moved_by_the_formula(
    master: Mantissa | None,
) -> tuple[list[torch.Tensor], list[np.ndarray], dict[str, torch.Tensor]]:
    """Parameters after some steps, and what p - eta * omega * mask * p - eta * u makes of the same updates in float64.

    The updates are those of a twin that starts at zero and never decays: they do not depend on the weights.
    """
    lr, decay = 0.05, 0.4
    params = weights() if master is None else [torch.nn.Parameter(w.detach().bfloat16()) for w in weights()]
    exact = [p.detach().double().numpy().copy() for p in params]
    config = SidedNorMuon(lr=lr, weight_decay=decay, decay=CautiousDecay())
    if master is not None:
        config.master = master
    twin = [torch.nn.Parameter(torch.zeros_like(p, dtype=torch.float64)) for p in params]
    group, still = config.build(named(params), World()), SidedNorMuon(lr=1.0).build(named(twin), World())
    for number, grads in zip(range(STEPS), gradients(11), strict=False):
        grads = [g.bfloat16().float() for g in grads]
        settings = Settings(lr_scale=1 - number / 10, momentum=0.9, decay_scale=1 - number / 10)
        for w in twin:
            w.data.zero_()
        step(still, [g.double() for g in grads], Settings(lr_scale=1.0, momentum=0.9))
        step(group, [g.to(p.dtype) for g, p in zip(grads, params, strict=True)], settings)
        eta, omega = lr * settings.lr_scale, decay * settings.decay_scale
        for i, (p, u) in enumerate(zip(exact, (-w.detach().numpy() for w in twin), strict=True)):
            rate = eta * max(1.0, p.shape[0] / p.shape[1]) ** 0.5
            u = u / max(1.0, p.shape[0] / p.shape[1]) ** 0.5
            exact[i] = p - rate * omega * (u * p >= 0) * p - rate * u
    return params, exact, group.state_tensors()


def test_cautious_decay_equals_the_formula_in_float64() -> None:
    params, exact, _ = moved_by_the_formula(None)
    for param, wanted in zip(params, exact, strict=True):
        assert relative(param, wanted) < 1e-6


def test_halves_together_are_a_float32_weight_on_the_same_path() -> None:
    """A bfloat16 parameter alone would be wrong by 2^-9 of itself; the halves are as good as float32."""
    params, exact, state = moved_by_the_formula(Mantissa())
    for index, (param, wanted) in enumerate(zip(params, exact, strict=True)):
        low = state[f"w{index}.mantissa"]
        assert relative(merge(param.detach(), low), wanted) < 1e-6
        assert 1e-4 < relative(param, wanted) < 8e-3


def test_split_and_merge_are_exact() -> None:
    """Every kind of number: signs, zeros, subnormals, infinities, and random bits."""
    bits = torch.randint(-(2**31), 2**31, (10_000,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    special = torch.tensor([0.0, -0.0, 1e-45, -1e-40, 3.4e38, float("inf"), -float("inf"), 1 + 2**-23])
    weights = torch.cat([special, bits.view(torch.float32)])
    high, low = split(weights)
    assert (high.dtype, low.dtype) == (torch.bfloat16, torch.int16)
    assert torch.equal(merge(high, low).view(torch.int32), weights.view(torch.int32))


def test_steps_too_small_for_bfloat16_add_up_in_the_halves() -> None:
    gradient = torch.eye(4)
    halves, rounded = (torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16)) for _ in range(2))
    groups = [
        Muon(lr=5e-4, master=Mantissa()).build({"w": halves}, World()),
        Muon(lr=5e-4).build({"w": rounded}, World()),
    ]
    for _ in range(100):
        for group in groups:
            step(group, [gradient.bfloat16()], Settings(1.0, 0.0))
    assert torch.equal(rounded, torch.ones_like(rounded))
    assert float(halves.detach().diagonal().float().mean()) < 0.97


def test_halves_need_bfloat16_parameters() -> None:
    with pytest.raises(ConfigError, match=r"w is torch\.float32: use AsStored"):
        Muon(master=Mantissa()).build({"w": torch.zeros(3, 3)}, World())
