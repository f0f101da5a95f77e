"""The fast path on a CUDA device against plain torch, whole models at a time."""

import pytest
import torch

from underpar.core.world import World
from underpar.data.context import packed_context, row_context
from underpar.kernels import attention as attention_room
from underpar.kernels.attention import attention, forced
from underpar.kernels.dispatch import plain_torch
from underpar.lab.bench import bench_recipe
from underpar.lab.build import build_model
from underpar.recipes import registry

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_compiled_model_agrees_with_plain_torch_forward_and_backward() -> None:
    config = registry.resolve("golf/baseline", overrides=["model.num_layers=3"]).config
    model = build_model(config, World(device="cuda:0"))
    model.compute_dtype = torch.bfloat16
    torch.manual_seed(0)
    for param in model.parameters():  # zero-initialised layers would hide most of the model
        if param.ndim == 2 and not param.any():
            torch.nn.init.normal_(param, std=0.02)
    tokens = torch.randint(0, 1024, (4, 1025), device="cuda")
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    ctx = row_context(inputs, 1)

    def run(forward) -> tuple[float, torch.Tensor]:
        model.zero_grad(set_to_none=True)
        loss = forward(inputs, targets, ctx).mean()
        loss.backward()
        return loss.item(), torch.cat([p.grad.float().flatten() for p in model.parameters()])

    fast_loss, fast_grad = run(torch.compile(model, dynamic=False, fullgraph=True))
    with plain_torch(), forced("flash"):
        plain_loss, plain_grad = run(model)
    assert fast_loss == pytest.approx(plain_loss, rel=2e-3)
    error = (fast_grad - plain_grad).norm() / plain_grad.norm()
    assert error < 0.05  # bfloat16 activations through three blocks, both ways


@pytest.mark.parametrize("backend", ["flash4", "cudnn", "flash"])
def test_dense_back_ends_agree_with_float64(backend: str) -> None:
    _compare(backend, torch.randn(2, 300, 16, 64, device="cuda"), None)


@pytest.mark.parametrize("backend", ["flash4", "varlen"])
def test_packed_back_ends_agree_with_float64(backend: str) -> None:
    inputs = torch.full((1, 777), 5)
    inputs[0, [0, 5, 300]] = 1
    offsets = packed_context(inputs, 1, 256).cu_seqlens
    assert offsets is not None
    _compare(backend, torch.randn(1, 777, 16, 64, device="cuda"), offsets.cuda())


def _compare(backend: str, qkv: torch.Tensor, cu_seqlens: torch.Tensor | None) -> None:
    if backend == "flash4" and not attention_room.flash4.IS_INSTALLED:
        pytest.skip("flash-attn-4 is not installed")
    inputs = [t.bfloat16().detach().requires_grad_() for t in qkv.split([8, 4, 4], dim=2)]
    exact = [t.double().detach().requires_grad_() for t in inputs]
    grad = torch.randn(*qkv.shape[:2], 8, 64, device="cuda")

    def run(name: str, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        with forced(name):
            out = attention(*tensors, cu_seqlens, qkv.shape[1])
        return [out, *torch.autograd.grad(out, tensors, grad.to(out.dtype))]

    for found, wanted in zip(run(backend, inputs), run("reference", exact), strict=True):
        assert (found.double() - wanted).norm() / wanted.norm() < 6e-3  # observed 2e-3 to 3.1e-3


def test_a_profile_divides_a_real_step() -> None:
    small = ["model.num_layers=3", "data.loader.batch_tokens=131072", "train.warmup_steps=2"]
    resolved = registry.resolve("golf/baseline", overrides=small)
    found = bench_recipe(resolved, World(device="cuda:0"), steps=3, attention=None, profiled=True)
    (profile,) = found["profiles"]
    shares = profile["shares"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert min(shares["matmul"], shares["attention"], shares["elementwise"], shares["optimiser"]) > 0.005
    assert shares["communication"] == 0.0
    assert found["step"]["recompilations"] == 0
    assert profile["step_ms"] == pytest.approx(found["step"]["step_ms"], rel=0.5)
    assert profile["busy_ms"] <= profile["step_ms"]
