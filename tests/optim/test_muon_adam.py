"""The optimisers against torch's own and against float64 references, and which parameters they get."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from support import busy, dense, random_tokens, seeded, tiny_config
from underpar.core.errors import ConfigError
from underpar.core.world import World
from underpar.nn.embeddings import UntiedHead
from underpar.optim.adam import Adam, AdamGroup
from underpar.optim.muon import Muon, MuonGroup
from underpar.optim.orthogonalise import FIXED_COEFFICIENTS, NewtonSchulz
from underpar.optim.partition import Optim
from underpar.optim.schedules import Settings
from underpar.train.events import EffectTrace

SHAPES = [(24, 24), (48, 16), (16, 48), (24, 24), (7, 5)]


def gradients(seed: int) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield [torch.randn(shape, generator=generator) for shape in SHAPES]


def weights() -> list[Tensor]:
    generator = torch.Generator().manual_seed(99)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def named(params: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"w{i}": p for i, p in enumerate(params)}


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.detach().double() - wanted.detach().double()).norm() / wanted.detach().double().norm())


# ------------------------------------------------------------------------------------------------- Newton-Schulz


def newton_schulz_float64(matrix: np.ndarray, steps: int = 5) -> np.ndarray:
    """The published iteration, one matrix at a time, in float64."""
    a, b, c = FIXED_COEFFICIENTS
    x = matrix.astype(np.float64)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    x = x / (np.sqrt((x * x).sum()) + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x


@pytest.mark.parametrize("shape", SHAPES)
def test_newton_schulz_equals_the_float64_iteration(shape: tuple[int, int]) -> None:
    batch = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = NewtonSchulz()(batch)
    for matrix, result in zip(batch, found, strict=True):
        wanted = torch.from_numpy(newton_schulz_float64(matrix.numpy()))
        assert relative(result, wanted) < 1e-5  # float32 rounding: 3e-7 to 1.6e-6 seen


@pytest.mark.parametrize("shape", [(64, 64), (128, 32), (32, 128)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_newton_schulz_brings_singular_values_near_one(shape: tuple[int, int], scale: float) -> None:
    generator = torch.Generator().manual_seed(3)
    left, right = (torch.linalg.qr(torch.randn(n, n, generator=generator))[0] for n in shape)
    rank = min(shape)
    values = torch.linspace(0.05, 1.0, rank)
    matrix = scale * (left[:, :rank] * values) @ right[:rank]
    found = torch.linalg.svdvals(NewtonSchulz()(matrix[None])[0])
    assert float(found.min()) > 0.6
    assert float(found.max()) < 1.3
    polar = left[:, :rank] @ right[:rank]
    cosine = float((NewtonSchulz()(matrix[None])[0] * polar).sum() / (found.norm() * polar.norm()))
    assert cosine > 0.98  # directions kept


def test_a_zero_gradient_gives_no_update() -> None:
    assert not NewtonSchulz()(torch.zeros(2, 8, 8)).any()


# ------------------------------------------------------------------------------------------------- Muon


def test_muon_equals_torch_muon_without_weight_decay() -> None:
    """Same momentum form up to a factor that orthogonalisation removes, same lr rule; torch iterates in bfloat16."""
    lr, momentum = 0.03, 0.95
    ours, theirs = weights(), weights()
    group = MuonGroup(Muon(lr=lr), named(ours), World())
    reference = torch.optim.Muon(theirs, lr=lr, momentum=momentum, weight_decay=0.0, nesterov=True, ns_steps=5)
    start = weights()
    for _, grads in zip(range(4), gradients(1), strict=False):
        for mine, other, grad in zip(ours, theirs, grads, strict=True):
            mine.grad, other.grad = grad.clone(), grad.clone()
        group.step(lr, momentum)
        reference.step()
    for mine, other, first in zip(ours, theirs, start, strict=True):
        moved, wanted = mine - first, other - first
        assert relative(moved, wanted) < 0.03  # bfloat16 has 8 bits: 0.0096 to 0.0111 seen
        assert float(wanted.detach().norm()) > 0.1


def test_muon_equals_a_float64_reference_with_changing_lr_and_momentum() -> None:
    params = weights()
    group = MuonGroup(Muon(), named(params), World())
    exact = [p.detach().numpy().astype(np.float64) for p in params]
    buffers = [np.zeros(shape) for shape in SHAPES]
    for step, grads in zip(range(5), gradients(2), strict=False):
        lr, momentum = 0.05 / (step + 1), 0.85 + 0.02 * step
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            param.grad = grad.clone()
            g = grad.numpy().astype(np.float64)
            buffers[i] = momentum * buffers[i] + g
            update = newton_schulz_float64(g + momentum * buffers[i])
            exact[i] = exact[i] - lr * max(1.0, g.shape[0] / g.shape[1]) ** 0.5 * update
        group.step(lr, momentum)
    for param, wanted in zip(params, exact, strict=True):
        assert relative(param, torch.from_numpy(wanted)) < 1e-6  # 6e-8 seen


def test_matrices_of_one_shape_do_not_mix() -> None:
    alone, together = weights(), weights()
    grads = next(gradients(3))
    for index in (0, 3):
        alone[index].grad = grads[index].clone()
        MuonGroup(Muon(), {"one": alone[index]}, World()).step(0.1, 0.9)
    for param, grad in zip(together, grads, strict=True):
        param.grad = grad.clone()
    MuonGroup(Muon(), named(together), World()).step(0.1, 0.9)
    for index in (0, 3):
        torch.testing.assert_close(alone[index], together[index], rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------- Adam


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_equals_torch_adamw(dtype: torch.dtype, weight_decay: float) -> None:
    config = Adam(lr=0.02, beta1=0.8, beta2=0.97, eps=1e-8, weight_decay=weight_decay)
    ours = [torch.nn.Parameter(p.detach().to(dtype)) for p in weights()]
    theirs = [torch.nn.Parameter(p.detach().to(dtype)) for p in weights()]
    group = AdamGroup(config, named(ours), World())
    reference = torch.optim.AdamW(theirs, betas=(0.8, 0.97), eps=1e-8, weight_decay=weight_decay, fused=True)
    for step, grads in zip(range(4), gradients(4), strict=False):
        lr = 0.02 * (1 - step / 5)
        for mine, other, grad in zip(ours, theirs, grads, strict=True):
            mine.grad, other.grad = grad.to(dtype), grad.to(dtype)
        group.step(lr, momentum=0.3)
        reference.param_groups[0]["lr"] = lr
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


def test_adam_equals_the_formula_in_float64() -> None:
    config = Adam(lr=0.01, beta1=0.9, beta2=0.95, eps=1e-8)
    param = weights()[0]
    exact = param.detach().double().clone()
    group = AdamGroup(config, {"w": param}, World())
    first, second = torch.zeros_like(exact), torch.zeros_like(exact)
    for step, grads in zip(range(1, 5), gradients(5), strict=False):
        param.grad = grads[0].clone()
        group.step(0.01, 0.0)
        g = grads[0].double()
        first, second = 0.9 * first + 0.1 * g, 0.95 * second + 0.05 * g * g
        exact -= 0.01 * (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
    assert relative(param, exact) < 1e-6


# ------------------------------------------------------------------------------------------------- state


def make_optim() -> Optim:
    return Optim(matrix=Muon(lr=0.04), embedding=Adam(lr=0.05), gain=Adam(lr=0.03))


def steps(model, optimisers, count: int, seed: int = 0) -> None:
    for step in range(count):
        tokens = random_tokens(2, 8, seed=seed + step)
        model(tokens, tokens.roll(-1, 1), dense(tokens)).mean().backward()
        optimisers.step(Settings(lr_scale=0.5, momentum=0.9))
        model.zero_grad(set_to_none=True)


def test_state_taken_and_put_back_goes_on_bit_identically() -> None:
    model, twin = busy(tiny_config()), busy(tiny_config())
    optimisers, others = (make_optim().build(m, World()) for m in (model, twin))
    assert all("momentum" in name for name in optimisers.state_tensors())  # Adam has nothing before its first step
    steps(model, optimisers, 3)
    twin.load_state_dict(model.state_dict())
    others.load_state_tensors({k: v.clone() for k, v in optimisers.state_tensors().items()})
    steps(model, optimisers, 2, seed=10)
    steps(twin, others, 2, seed=10)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    mine, other = optimisers.state_tensors(), others.state_tensors()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[k], other[k]) for k in mine)


def test_reset_is_as_if_no_step_had_been_taken() -> None:
    model, fresh = busy(tiny_config()), busy(tiny_config())
    optimisers, others = (make_optim().build(m, World()) for m in (model, fresh))
    steps(model, optimisers, 3)
    optimisers.reset()
    model.load_state_dict(fresh.state_dict())
    steps(model, optimisers, 2, seed=5)
    steps(fresh, others, 2, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


# ------------------------------------------------------------------------------------------------- partition


def test_every_parameter_gets_the_optimiser_of_its_role() -> None:
    optimisers = make_optim().build(seeded(tiny_config()), World())
    names = {role: set(group.params) for role, (_, group) in optimisers.groups.items()}
    assert names["embedding"] == {"embedding.weight"}
    assert "blocks.1.mlp.up.weight" in names["matrix"]
    assert names["gain"] >= {
        "skips.weight",
        "blocks.0.attn_scale",
        "blocks.0.attention.q_gain",
        "blocks.0.residual.mix",
    }
    assert sum(map(len, names.values())) == len(list(seeded(tiny_config()).parameters()))


def test_a_role_without_optimiser_is_an_error() -> None:
    config = tiny_config()
    config.head = UntiedHead()
    with pytest.raises(ConfigError, match=r"optim\.head is None, but the model has 1 parameters of that role"):
        make_optim().build(seeded(config), World())


def test_an_optimiser_without_role_is_an_error() -> None:
    optim = make_optim()
    optim.gate = Adam(lr=0.1)
    with pytest.raises(
        ConfigError, match=r"optim\.gate = Adam\(lr=0\.1\), but the model has no parameter of that role"
    ):
        optim.build(seeded(tiny_config()), World())


def test_muon_on_a_vector_is_refused() -> None:
    optim = make_optim()
    optim.gain = Muon()
    with pytest.raises(ConfigError, match=r"Muon needs 2-D parameters; \S+ has shape"):
        optim.build(seeded(tiny_config()), World())


def test_what_was_consumed_enters_the_effect_trace() -> None:
    model = busy(tiny_config())
    optimisers = make_optim().build(model, World())
    trace = EffectTrace()
    for step, settings in enumerate([Settings(1.0, 0.85), Settings(1.0, 0.9), Settings(0.5, 0.9)], start=1):
        tokens = random_tokens(1, 8)
        model(tokens, tokens, dense(tokens)).mean().backward()
        trace.record(step, optimisers.step(settings))
    assert trace.changes == {
        "optim.matrix.lr": [[1, 0.04], [3, 0.02]],
        "optim.matrix.momentum": [[1, 0.85], [2, 0.9]],
        "optim.embedding.lr": [[1, 0.05], [3, 0.025]],
        "optim.gain.lr": [[1, 0.03], [3, 0.015]],
    }
    assert trace.values_at("optim.matrix.lr", 2) == 0.04
    assert trace.values_at("optim.matrix.lr", 3) == 0.02
    with pytest.raises(KeyError):
        trace.values_at("optim.head.lr", 1)
