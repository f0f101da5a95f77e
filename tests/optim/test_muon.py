"""The Muon family against torch's own Muon and against float64 references of the published formulas."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from matrices import SHAPES, gradients, named, newton_schulz_float64, relative, step, weights

from underpar.core.errors import ConfigError
from underpar.core.world import World
from underpar.optim.muon import Muon
from underpar.optim.muoneqr import MuonEqR
from underpar.optim.normuon import NorMuon
from underpar.optim.orthogonalise import POLAR_EXPRESS_COEFFICIENTS, PolarExpress
from underpar.optim.schedules import Settings
from underpar.optim.sharded import MatrixOptimiser
from underpar.optim.sided_normuon import SidedNorMuon

FAMILY = pytest.mark.parametrize("config", [Muon(), NorMuon(), MuonEqR(), SidedNorMuon()], ids=str)

Reference = Callable[[np.ndarray, dict[str, np.ndarray], float], np.ndarray]
"""(gradient, state that it changes, momentum) -> update, for one matrix in float64."""


def muon(g: np.ndarray, state: dict[str, np.ndarray], m: float) -> np.ndarray:
    state["buf"] = m * state.get("buf", 0.0) + g
    return newton_schulz_float64(g + m * state["buf"])


def muon_eq_r(g: np.ndarray, state: dict[str, np.ndarray], m: float) -> np.ndarray:
    state["buf"] = m * state.get("buf", 0.0) + g
    mixed = g + m * state["buf"]
    rows = np.maximum(np.sqrt((mixed**2).sum(1, keepdims=True)), 1e-7)
    return newton_schulz_float64(mixed / rows, POLAR_EXPRESS_COEFFICIENTS)


def normuon(g: np.ndarray, state: dict[str, np.ndarray], m: float) -> np.ndarray:
    before = state.get("buf", np.zeros_like(g))
    state["buf"] = before + (1 - m) * (g - before)
    u = newton_schulz_float64((1 - m) * g + m * state["buf"])
    size = np.sqrt((u**2).sum())
    state["v"] = 0.9 * state.get("v", np.zeros((len(g), 1))) + 0.1 * (u**2).mean(1, keepdims=True)
    u = u / (np.sqrt(state["v"]) + 1e-10)
    return u * size / (np.sqrt((u**2).sum()) + 1e-10)


def sided_normuon(g: np.ndarray, state: dict[str, np.ndarray], m: float) -> np.ndarray:
    rows, cols = g.shape
    axis = 1 if rows >= cols else 0
    state["M"] = state.get("M", np.zeros_like(g))
    state["M"] = state["M"] + (1 - m) * (g - state["M"])
    u = newton_schulz_float64(g + m * (state["M"] - g), POLAR_EXPRESS_COEFFICIENTS, safety=1.02)
    mean = (u**2).mean(axis=axis, keepdims=True)
    state["v"] = state.get("v", np.zeros_like(mean))
    state["v"] = state["v"] + (1 - 0.95) * (mean - state["v"])
    scaled = u / np.sqrt(np.maximum(state["v"], 1e-10))
    return scaled * np.sqrt((u**2).sum()) / max(np.sqrt((scaled**2).sum()), 1e-10)


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        (Muon(), muon),
        (NorMuon(beta2=0.9), normuon),
        (MuonEqR(orthogonalise=PolarExpress()), muon_eq_r),
        (SidedNorMuon(orthogonalise=PolarExpress(safety_factor=1.02)), sided_normuon),
    ],
    ids=["Muon", "NorMuon", "MuonEqR", "SidedNorMuon"],
)
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_equal_to_the_formula_in_float64(config: MatrixOptimiser, reference: Reference, decay: float) -> None:
    config.lr, config.weight_decay = 0.05, decay
    params = weights()
    group = config.build(named(params), World())
    exact = [p.detach().numpy().astype(np.float64) for p in params]
    states: list[dict[str, np.ndarray]] = [{} for _ in SHAPES]
    for number, grads in zip(range(5), gradients(2), strict=False):
        settings = Settings(lr_scale=1 / (number + 1), momentum=0.85 + 0.02 * number, decay_scale=1 - 0.1 * number)
        lr = 0.05 * settings.lr_scale
        for i, grad in enumerate(grads):
            update = reference(grad.numpy().astype(np.float64), states[i], settings.momentum)
            shrunk = exact[i] * (1 - lr * decay * settings.decay_scale)
            exact[i] = shrunk - lr * max(1.0, grad.shape[0] / grad.shape[1]) ** 0.5 * update
        step(group, grads, settings)
    for param, wanted in zip(params, exact, strict=True):
        assert relative(param, wanted) < 1e-6  # 5e-8 to 2e-7 seen


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_equals_torch_muon(weight_decay: float) -> None:
    """Same momentum form up to a factor that orthogonalisation removes, same lr rule; torch iterates in bfloat16."""
    lr, momentum = 0.03, 0.95
    ours, theirs, start = weights(), weights(), weights()
    group = Muon(lr=lr, weight_decay=weight_decay).build(named(ours), World())
    reference = torch.optim.Muon(theirs, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=True, ns_steps=5)
    for _, grads in zip(range(4), gradients(1), strict=False):
        for other, grad in zip(theirs, grads, strict=True):
            other.grad = grad.clone()
        step(group, grads, Settings(lr_scale=1.0, momentum=momentum))
        reference.step()
    for mine, other, first in zip(ours, theirs, start, strict=True):
        moved, wanted = mine - first, other - first
        assert relative(moved, wanted) < 0.03  # bfloat16 has 8 bits: 0.0096 to 0.0111 seen
        assert float(wanted.detach().norm()) > 0.1


def test_normuon_evens_out_rows_and_keeps_the_size_of_the_update() -> None:
    generator = torch.Generator().manual_seed(7)
    gradient = torch.randn(32, 16, generator=generator) * torch.linspace(0.1, 3.0, 32)[:, None]
    settings = Settings(lr_scale=1.0, momentum=0.9)
    moved = {}
    for config in (Muon(lr=1.0), NorMuon(lr=1.0, beta2=0.0)):
        param = torch.nn.Parameter(torch.zeros(32, 16))
        step(config.build({"w": param}, World()), [gradient], settings)
        moved[str(config.__class__.__name__)] = param.detach()
    assert float(moved["Muon"].norm(dim=1).std()) > 0.2
    assert float(moved["NorMuon"].norm(dim=1).std()) < 1e-5
    torch.testing.assert_close(moved["NorMuon"].norm(), moved["Muon"].norm(), rtol=1e-5, atol=0)


def test_muon_eq_r_does_not_see_the_scale_of_rows() -> None:
    generator = torch.Generator().manual_seed(8)
    gradient = torch.randn(12, 20, generator=generator)
    scales = torch.logspace(-3, 3, 12)[:, None]
    moved = []
    for grad in (gradient, gradient * scales):
        param = torch.nn.Parameter(torch.zeros(12, 20))
        step(MuonEqR().build({"w": param}, World()), [grad], Settings(lr_scale=1.0, momentum=0.9))
        moved.append(param.detach())
    torch.testing.assert_close(*moved, rtol=1e-4, atol=1e-6)


def test_sided_normuon_treats_a_weight_and_its_transpose_alike() -> None:
    gradient = torch.randn(24, 10, generator=torch.Generator().manual_seed(9)) * torch.linspace(0.1, 2, 24)[:, None]
    moved = []
    for grad in (gradient, gradient.mT.contiguous()):
        param = torch.nn.Parameter(torch.zeros_like(grad))
        group = SidedNorMuon(lr=1.0 / max(1.0, grad.shape[0] / grad.shape[1]) ** 0.5).build({"w": param}, World())
        for _ in range(2):
            step(group, [grad], Settings(lr_scale=1.0, momentum=0.9))
        moved.append(param.detach())
    torch.testing.assert_close(moved[1].mT, moved[0], rtol=1e-4, atol=1e-6)


@FAMILY
def test_matrices_of_one_shape_do_not_mix(config: MatrixOptimiser) -> None:
    together, settings = weights(), Settings(lr_scale=1.0, momentum=0.9)
    grads = next(gradients(3))
    step(config.build(named(together), World()), grads, settings)
    for index in (0, 3):
        alone = weights()[index]
        step(config.build({"one": alone}, World()), [grads[index]], settings)
        torch.testing.assert_close(alone, together[index], rtol=1e-5, atol=1e-6)


@FAMILY
def test_bfloat16_buffers_hold_momentum_and_barely_change_the_path(config: MatrixOptimiser) -> None:
    ends = []
    for dtype in ("float32", "bfloat16"):
        config.buffer_dtype = dtype
        params = weights()
        group = config.build(named(params), World())
        for _, grads in zip(range(4), gradients(4), strict=False):
            step(group, grads, Settings(lr_scale=1.0, momentum=0.9))
        assert {str(t.dtype) for k, t in group.state_tensors().items() if "momentum" in k} == {f"torch.{dtype}"}
        assert all(p.dtype == torch.float32 for p in params)
        ends.append(torch.cat([(p - w).detach().flatten() for p, w in zip(params, weights(), strict=True)]))
    assert 1e-5 < relative(ends[1], ends[0]) < 0.03  # rounding of 2^-9 a buffer: 0.006 to 0.008 seen


@FAMILY
def test_a_missing_gradient_is_a_zero_gradient(config: MatrixOptimiser) -> None:
    config.weight_decay = 0.1
    ends = []
    for missing in (False, True):
        params = weights()
        group = config.build(named(params), World())
        for number, grads in zip(range(3), gradients(5), strict=False):
            for index, (param, grad) in enumerate(zip(params, grads, strict=True)):
                param.grad = grad.clone()
                if number > 0 and index in (1, 3):
                    param.grad = None if missing else torch.zeros_like(grad)
            group.begin()
            group.step(Settings(lr_scale=1.0, momentum=0.9))
        ends.append(params)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@FAMILY
def test_a_vector_is_refused(config: MatrixOptimiser) -> None:
    with pytest.raises(ConfigError, match=r"^\w*Mu\w* needs 2-D parameters; v has shape \(3,\): give its role Adam"):
        config.build({"w": torch.zeros(3, 3), "v": torch.zeros(3)}, World())
