"""Clipping in one process: against torch's, in all dtypes, with every optimiser."""

import pytest
import torch
from torch import Tensor

from support import busy, tiny_config
from underpar.core.config import apply_override
from underpar.core.errors import ConfigError
from underpar.core.world import World
from underpar.model.gpt import GPT
from underpar.nn.embeddings import Embedding
from underpar.optim.clip import GlobalClip, GradientClip, LocalClip
from underpar.optim.partition import Optim
from underpar.optim.schedules import Settings

BOTH = pytest.mark.parametrize("clip", [GlobalClip(norm=0.3), LocalClip(norm=0.3)], ids=str)


def gradients(model: GPT, scale: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [(scale * torch.randn(p.shape, generator=generator)).to(p.dtype) for p in model.parameters()]


def trained(
    clip: GradientClip | None, scale: float, *, by_torch: float | None = None, table: str = "bfloat16"
) -> list[Tensor]:
    """Weights after three steps on large, then small gradients, clipped by the optimisers or before them by torch."""
    config = tiny_config()
    config.embedding = Embedding(init_std=0.05, param_dtype=table)  # type: ignore[arg-type]
    model = busy(config)
    optimisers = Optim(clip=clip).build(model, World())
    for number in range(3):
        for param, grad in zip(model.parameters(), gradients(model, scale * 10.0**-number), strict=True):
            param.grad = grad
        if by_torch is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), by_torch)
        optimisers.step(Settings(lr_scale=1.0, momentum=0.9))
    return [p.detach().float() for p in model.parameters()]


@BOTH
@pytest.mark.parametrize(("table", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-3)])
def test_equal_to_torch_in_one_process(clip: GradientClip, table: str, tolerance: float) -> None:
    """torch rounds the norm of a bfloat16 tensor to bfloat16, which moves a table in bfloat16 by a unit in the last place."""
    found, wanted = trained(clip, 1.0, table=table), trained(None, 1.0, by_torch=0.3, table=table)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    unclipped = trained(None, 1.0, table=table)
    assert max(float((a - c).abs().max()) for a, c in zip(found, unclipped, strict=True)) > 0.01


@BOTH
def test_small_gradients_pass_untouched(clip: GradientClip) -> None:
    assert all(torch.equal(a, b) for a, b in zip(trained(clip, 1e-5), trained(None, 1e-5), strict=True))


@BOTH
def test_the_norm_enters_the_effect_trace(clip: GradientClip) -> None:
    model = busy(tiny_config())
    used = Optim(clip=clip).build(model, World()).step(Settings(lr_scale=1.0, momentum=0.9))
    assert used["optim.clip.norm"] == 0.3


def test_chosen_on_the_command_line_and_ranged() -> None:
    optim = Optim()
    apply_override(optim, "clip=LocalClip(norm=0.5)")
    assert optim.clip == LocalClip(norm=0.5)
    with pytest.raises(ConfigError, match=r"norm = 0"):
        GlobalClip(norm=0).frozen()
