"""Exclusive self-attention and the output gate: the reference against its formula, the kernel against float64."""

import math

import pytest
import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.exclusive_gate import exclusive_gate, op, ref

SLACK = {torch.float32: 2.0, torch.bfloat16: 1.1, torch.float16: 1.1}
"""By dtype of the output."""

# (batch, time, heads, kv heads, head_dim), each with its reason.
SHAPES = [
    pytest.param((2, 9, 8, 4, 64), id="late-heads-last-tile-cut-short"),
    pytest.param((1, 40, 6, 2, 16), id="groups-of-three-several-programs"),
    pytest.param((3, 5, 2, 2, 32), id="no-grouping"),
    pytest.param((0, 4, 8, 4, 64), id="no-rows"),
]
PARTS = {"both": (True, True), "exclusive": (True, False), "gate": (False, True)}
"""Whether values and whether logits are given."""


def make(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """y as attention returns it, v as a view of a packed projection, gate logits."""
    batch, time, heads, kv_heads, dim = shape
    generator = torch.Generator().manual_seed(sum(shape))
    y = torch.randn(batch, time, heads, dim, generator=generator).to(dtype).to(device)
    packed = torch.randn(batch, time, (heads + 2 * kv_heads) * dim, generator=generator).to(dtype).to(device)
    logits = torch.randn(batch, time, heads, generator=generator).to(dtype).to(device)
    return y, packed.unflatten(-1, (-1, dim))[:, :, heads + kv_heads :], logits


def results(function, inputs: tuple[Tensor | None, ...], factor: float) -> tuple[Tensor, ...]:
    """Output and the gradients of what is given."""
    leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
    out = function(*leaves, factor)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return out, *torch.autograd.grad(out, [x for x in leaves if x is not None], grad)


def given(part: str, y: Tensor, v: Tensor, logits: Tensor) -> tuple[Tensor | None, ...]:
    has_values, has_logits = PARTS[part]
    return y, v if has_values else None, logits if has_logits else None


def doubled(inputs: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(None if x is None else x.double() for x in inputs)


def public(y: Tensor, v: Tensor | None, logits: Tensor | None, factor: float) -> Tensor:
    return exclusive_gate(y, v, logits, factor=factor)


def test_reference_is_the_written_formula() -> None:
    y, v, logits = make((1, 3, 4, 2, 8), torch.float64, torch.device("cpu"))
    out = exclusive_gate(y, v, logits, factor=2.0)
    token, head = 2, 3
    vector, value = y[0, token, head].tolist(), v[0, token, head // 2].tolist()
    length = math.sqrt(sum(x * x for x in value))
    along = sum(a * b / length for a, b in zip(vector, value, strict=True))
    gate = 2 / (1 + math.exp(-logits[0, token, head].item()))
    expected = [gate * (a - along * b / length) for a, b in zip(vector, value, strict=True)]
    torch.testing.assert_close(out[0, token, head], torch.tensor(expected, dtype=torch.float64))


def test_nothing_is_left_along_the_value() -> None:
    y, v, _ = make((2, 5, 6, 2, 16), torch.float64, torch.device("cpu"))
    along = (exclusive_gate(y, v).unflatten(2, (2, 3)) * v.unsqueeze(3)).sum(-1)
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-12, rtol=0)


def test_what_is_absent_changes_nothing() -> None:
    y, v, logits = make((2, 5, 4, 2, 8), torch.float64, torch.device("cpu"))
    assert exclusive_gate(y) is y
    assert torch.equal(exclusive_gate(y, None, torch.zeros_like(logits), factor=2.0), y)
    assert torch.equal(exclusive_gate(y, torch.zeros_like(v)), y)


def test_reference_gradients_match_finite_differences() -> None:
    inputs = tuple(x.detach().requires_grad_() for x in make((1, 2, 4, 2, 4), torch.float64, torch.device("cpu")))
    assert torch.autograd.gradcheck(lambda *leaves: exclusive_gate(*leaves, factor=1.5), inputs)


def test_misfits_are_one_line_errors() -> None:
    y, v, logits = make((1, 4, 4, 2, 8), torch.float32, torch.device("cpu"))
    for call, message in [
        (lambda: exclusive_gate(y[0], v), r"y is \(4, 4, 8\)"),
        (lambda: exclusive_gate(y, v[:, :3]), r"v \(1, 3, 2, 8\)"),
        (lambda: exclusive_gate(y[:, :, :3], v), "3 heads; they must be a multiple of the 2"),
        (lambda: exclusive_gate(y, v.double()), "v is torch.float64"),
        (lambda: exclusive_gate(y, v, logits[..., :3]), r"logits \(1, 4, 3\)"),
        (lambda: exclusive_gate(y, v, logits, factor=math.inf), "factor is inf"),
    ]:
        with pytest.raises(ConfigError, match=message) as failure:
            call()
        assert "\n" not in str(failure.value)


@pytest.mark.gpu
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_parity(shape, part, dtype, kernel_device, assert_no_worse) -> None:
    inputs = given(part, *make(shape, dtype, kernel_device))
    ours = results(op.exclusive_gate, inputs, 2.0)
    plain = results(ref.exclusive_gate, inputs, 2.0)
    exact = results(ref.exclusive_gate, doubled(inputs), 2.0)
    assert all(out.is_contiguous() for out in ours)
    for out, plain_out, exact_out in zip(ours, plain, exact, strict=True):
        assert_no_worse(out, plain_out, exact_out, SLACK[dtype])


@pytest.mark.gpu
def test_rows_of_any_strides_are_read(kernel_device) -> None:
    y, v, logits = make((2, 6, 4, 2, 16), torch.float32, kernel_device)
    y = y.transpose(1, 2).contiguous().transpose(1, 2)  # (B, H, T, D) in memory
    logits = torch.stack((logits, logits), -1)[..., 0]
    for out, expected in zip(
        results(op.exclusive_gate, (y, v, logits), 1.0), results(ref.exclusive_gate, (y, v, logits), 1.0), strict=True
    ):
        torch.testing.assert_close(out, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("scale", [0.0, 1e-14])
def test_values_too_short_for_a_direction(scale, kernel_device) -> None:
    y, v, logits = make((1, 4, 4, 2, 16), torch.float32, kernel_device)
    inputs = (y, v * scale, logits)
    for out, expected in zip(
        results(op.exclusive_gate, inputs, 1.0), results(ref.exclusive_gate, inputs, 1.0), strict=True
    ):
        assert out.isfinite().all()
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("part", PARTS)
def test_operators_are_well_formed(part, kernel_device) -> None:
    inputs = given(part, *make((1, 3, 4, 2, 16), torch.float32, kernel_device))
    torch.library.opcheck(op.exclusive_gate_backward, (torch.randn_like(inputs[0]), *inputs, 2.0))
    leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
    torch.library.opcheck(op.exclusive_gate, (*leaves, 2.0))


@pytest.mark.gpu
@pytest.mark.parametrize("part", PARTS)
def test_real_shape_compiles_to_one_graph(part, cuda, assert_no_worse) -> None:
    inputs = given(part, *make((1, 65_537, 8, 4, 64), torch.bfloat16, cuda))
    ours = results(torch.compile(public, fullgraph=True, dynamic=False), inputs, 2.0)
    plain = results(ref.exclusive_gate, inputs, 2.0)
    exact = results(ref.exclusive_gate, doubled(inputs), 2.0)
    for out, plain_out, exact_out in zip(ours, plain, exact, strict=True):
        assert_no_worse(out, plain_out, exact_out, SLACK[torch.bfloat16])
