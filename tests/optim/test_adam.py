"""Adam against torch's own and against the formula in float64."""

import pytest
import torch
from matrices import gradients, named, relative, step, weights

from underpar.core.world import World
from underpar.optim.adam import Adam
from underpar.optim.schedules import Settings


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_equal_to_torch_adamw(dtype: torch.dtype, weight_decay: float) -> None:
    config = Adam(lr=0.02, beta1=0.8, beta2=0.97, eps=1e-8, weight_decay=weight_decay)
    ours = [torch.nn.Parameter(p.detach().to(dtype)) for p in weights()]
    theirs = [torch.nn.Parameter(p.detach().to(dtype)) for p in weights()]
    group = config.build(named(ours), World())
    reference = torch.optim.AdamW(theirs, betas=(0.8, 0.97), eps=1e-8, fused=True)
    for number, grads in zip(range(4), gradients(4), strict=False):
        settings = Settings(lr_scale=1 - number / 5, momentum=0.3, decay_scale=1 - number / 10)
        for other, grad in zip(theirs, grads, strict=True):
            other.grad = grad.to(dtype)
        step(group, [grad.to(dtype) for grad in grads], settings)
        reference.param_groups[0]["lr"] = 0.02 * settings.lr_scale
        reference.param_groups[0]["weight_decay"] = weight_decay * settings.decay_scale
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


def test_equal_to_the_formula_in_float64() -> None:
    param = weights()[0]
    exact = param.detach().double().clone()
    group = Adam(lr=0.01, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.2).build({"w": param}, World())
    first, second = torch.zeros_like(exact), torch.zeros_like(exact)
    for number, grads in zip(range(1, 5), gradients(5), strict=False):
        step(group, grads[:1], Settings(lr_scale=0.5, momentum=0.0, decay_scale=0.5))
        g = grads[0].double()
        first, second = 0.9 * first + 0.1 * g, 0.95 * second + 0.05 * g * g
        exact *= 1 - 0.005 * 0.1
        exact -= 0.005 * (first / (1 - 0.9**number)) / ((second / (1 - 0.95**number)).sqrt() + 1e-8)
    assert relative(param, exact) < 1e-6


def test_a_missing_gradient_still_decays_moments_and_weights() -> None:
    ends = []
    for missing in (False, True):
        params = weights()[:2]
        group = Adam(lr=0.01, weight_decay=0.5).build(named(params), World())
        step(group, next(gradients(6))[:2], Settings(1.0, 0.9))
        after_one = params[1].detach().clone()
        params[1].grad = None if missing else torch.zeros_like(params[1])
        group.begin()
        group.step(Settings(1.0, 0.9))
        assert not torch.equal(params[1], after_one)
        ends.append([*params, *group.state_tensors().values()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
