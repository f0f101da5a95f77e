"""The squared-ReLU MLP: the reference against its formula, the kernels against float64."""

import math

import pytest
import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.mlp_act import mlp_act, op, ref

SLACK = 2.0
"""Observed up to 1.06 in 16 bits and 1.13 in fp32: the same sums in another order."""

# (rows, dim, hidden, out dim), each with its reason. Tiles are 128 x 256 x 64.
SHAPES = [
    pytest.param((129, 72, 264, 80), id="one-over-a-tile-everywhere-and-several-tiles-a-program"),
    pytest.param((8, 8, 8, 8), id="smallest"),
    pytest.param((0, 64, 256, 64), id="no-rows"),
]


def make(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """x, w_up, w_down and the gradient of the output, at scales that keep activations near one."""
    rows, dim, hidden, out_dim = shape
    generator = torch.Generator().manual_seed(sum(shape))
    x, w_up, w_down, grad = (
        torch.randn(size, generator=generator)
        for size in ((rows, dim), (hidden, dim), (out_dim, hidden), (rows, out_dim))
    )
    return [t.to(dtype).to(device) for t in (x, w_up / dim**0.5, w_down / hidden**0.5, grad)]


def results(function, inputs: list[Tensor], negative_slope: float) -> tuple[Tensor, ...]:
    """Output and gradients of x, w_up, w_down."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs[:3]]
    out = function(*leaves, negative_slope)
    return out, *torch.autograd.grad(out, leaves, inputs[3])


def kernel(x: Tensor, w_up: Tensor, w_down: Tensor, negative_slope: float) -> Tensor:
    return op.mlp_act(x, w_up, w_down, negative_slope)[0]


def test_reference_is_the_written_formula() -> None:
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    w_up = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    w_down = torch.tensor([[1.0, 1.0, 10.0]], dtype=torch.float64)
    assert mlp_act(x, w_up, w_down).item() == 1.0 + 0.0 + 10.0
    assert mlp_act(x, w_up, w_down, 0.5).item() == 1.0 + 1.0 + 10.0


def test_reference_gradients_match_finite_differences() -> None:
    inputs = [t.requires_grad_() for t in make((3, 4, 6, 2), torch.float64, torch.device("cpu"))[:3]]
    for slope in (0.0, 0.5):
        assert torch.autograd.gradcheck(lambda *leaves, slope=slope: mlp_act(*leaves, slope), inputs)


def test_weights_follow_the_activations() -> None:
    x, w_up, w_down, _ = make((4, 8, 16, 8), torch.float32, torch.device("cpu"))
    w_up.requires_grad_()
    out = mlp_act(x.bfloat16()[None], w_up, w_down)
    assert out.dtype == torch.bfloat16
    assert out.shape == (1, 4, 8)
    out.float().sum().backward()
    assert w_up.grad is not None
    assert w_up.grad.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert mlp_act(x, w_up, w_down).dtype == torch.bfloat16


def test_misfits_are_one_line_errors() -> None:
    x, w_up, w_down, _ = make((4, 8, 16, 8), torch.float32, torch.device("cpu"))
    for arguments, message in [
        ((x[:, :7], w_up, w_down), r"x \(4, 7\)"),
        ((x, w_up, w_down[:, :15]), r"w_down \(8, 15\)"),
        ((x, w_up, w_down, -0.5), "negative_slope is -0.5"),
        ((x, w_up, w_down, math.nan), "negative_slope is nan"),
    ]:
        with pytest.raises(ConfigError, match=message) as failure:
            mlp_act(*arguments)
        assert "\n" not in str(failure.value)


def test_the_root_of_a_rounded_square_is_nearer_than_a_rounded_copy() -> None:
    # What lets the kernel save the activation alone.
    pre = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) + 0.5
    root = pre.square().bfloat16().float().sqrt()
    assert (root - pre).norm() < 0.6 * (pre.bfloat16().float() - pre).norm()


@pytest.mark.gpu
@pytest.mark.parametrize("negative_slope", [0.0, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_parity(shape, negative_slope, dtype, kernel_device, assert_no_worse) -> None:
    if kernel_device.type == "cuda" and dtype == torch.float32:
        pytest.skip("the kernel is for bf16; in fp32 a GPU would multiply in tf32")
    inputs = make(shape, dtype, kernel_device)
    ours = results(kernel, inputs, negative_slope)
    plain = results(ref.mlp_act, inputs, negative_slope)
    exact = results(ref.mlp_act, [t.double() for t in inputs], negative_slope)
    for out, plain_out, exact_out in zip(ours, plain, exact, strict=True):
        assert_no_worse(out, plain_out, exact_out, SLACK)


@pytest.mark.gpu
@pytest.mark.parametrize("negative_slope", [0.0, 0.5])
@pytest.mark.parametrize("ahead", [1, 2])
def test_what_is_done_ahead_changes_no_number(negative_slope, ahead, kernel_device) -> None:
    from underpar.kernels.mlp_act import triton as kernels

    dtype = torch.bfloat16 if kernel_device.type == "cuda" else torch.float32
    x, w_up, w_down, grad = make((130, 72, 264, 80), dtype, kernel_device)
    post, pre = kernels.launch_up(x, w_up, negative_slope)
    saved = pre if negative_slope else post
    first, second = (
        kernels.launch_grad_pre(grad, w_down, saved, negative_slope, kernels.GRAD_TILE | {"AHEAD": value})
        for value in (0, ahead)
    )
    assert torch.equal(first, second)


@pytest.mark.gpu
@pytest.mark.parametrize("negative_slope", [0.0, 0.5])
def test_operators_are_well_formed(negative_slope, kernel_device) -> None:
    dtype = torch.bfloat16 if kernel_device.type == "cuda" else torch.float32
    x, w_up, w_down, grad = make((16, 8, 16, 8), dtype, kernel_device)
    saved = op.mlp_act(x, w_up, w_down, negative_slope)[2 if negative_slope else 1]
    torch.library.opcheck(op.mlp_act_grad_pre, (grad, w_down, saved, negative_slope))
    leaves = [t.requires_grad_() for t in (x, w_up, w_down)]
    torch.library.opcheck(op.mlp_act, (*leaves, negative_slope))


@pytest.mark.gpu
def test_frozen_weights_get_no_gradient(kernel_device) -> None:
    dtype = torch.bfloat16 if kernel_device.type == "cuda" else torch.float32
    x, w_up, w_down, grad = make((16, 8, 16, 8), dtype, kernel_device)
    x.requires_grad_()
    kernel(x, w_up, w_down, 0.0).backward(grad)
    (expected,) = torch.autograd.grad(ref.mlp_act(x, w_up, w_down, 0.0), x, grad)
    error = (x.grad - expected).double().norm() / expected.double().norm()
    assert error < (1e-2 if dtype == torch.bfloat16 else 1e-5)  # two roundings of the dtype
    assert w_up.grad is None
    assert w_down.grad is None


@pytest.mark.gpu
@pytest.mark.parametrize("negative_slope", [0.0, 0.5])
def test_real_shape_compiles_to_one_graph(negative_slope, cuda, assert_no_worse) -> None:
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("the kernel needs Hopper's copy engine")
    inputs = make((65_536, 512, 1024, 512), torch.bfloat16, cuda)
    ours = results(torch.compile(mlp_act, fullgraph=True, dynamic=False), inputs, negative_slope)
    plain = results(ref.mlp_act, inputs, negative_slope)
    exact = results(ref.mlp_act, [t.double() for t in inputs], negative_slope)
    for out, plain_out, exact_out in zip(ours, plain, exact, strict=True):
        assert_no_worse(out, plain_out, exact_out, SLACK)
