"""Soft-capped cross-entropy: the reference against its formula, the kernel against float64."""

import logging
import math

import pytest
import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels import dispatch
from underpar.kernels.softcapped_ce import cross_entropy, op, ref, softcapped_cross_entropy

# The interpreter is numpy, which warns when a number overflows to infinity on its way to the right answer.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

# (rows, vocabulary), each with its reason.
SHAPES = [
    pytest.param(1, 1, id="one-class"),
    pytest.param(5, 64, id="rows-fill-no-tile"),
    pytest.param(17, 260, id="bytes-vocabulary-pads-its-block"),
    pytest.param(6, 1024, id="baseline-vocabulary-one-block"),
    pytest.param(3, 1025, id="one-over-a-block"),
    pytest.param(2, 8191, id="odd-one-under-the-largest-block"),
    pytest.param(2, 8193, id="streams-one-column-over"),
    pytest.param(0, 1024, id="no-rows"),
]


LOSS_SLACK = 8.0
"""Observed up to 5.1: the shifted cap works with numbers up to twice as large."""
LOSS_FLOOR = 2 * torch.finfo(torch.float32).eps
"""A GPU's exponential and logarithm are good to two places; on a few rows plain torch can be exact by luck."""
NARROW_GRAD_SLACK = 1.1
"""Observed 1.00: the rounding of the gradient to 16 bits hides everything else."""
FP32_GRAD_ERROR = 2e-6
"""Observed up to 1e-6: the log-sum-exp is kept as one fp32 number of up to twice the cap, half of whose last place this
is, and a change of the exponent is a relative change of every probability. Plain torch keeps the maximum apart."""


def make(rows: int, vocab: int, dtype: torch.dtype, device: torch.device, scale: float = 12.0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(rows * 31 + vocab)
    logits = (scale * torch.randn(rows, vocab, generator=generator)).to(dtype).to(device)
    targets = torch.randint(vocab, (rows,), generator=generator).to(device)
    grad = torch.randn(rows, generator=generator).to(device)
    return logits, targets, grad


def reference(logits: Tensor, targets: Tensor, softcap: float) -> Tensor:
    if softcap == op.NO_CAP:
        return ref.cross_entropy(logits, targets)
    return ref.softcapped_cross_entropy(logits, targets, softcap)


def with_gradient(function, logits: Tensor, targets: Tensor, softcap: float, grad: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    losses = function(leaf, targets, softcap)
    (grad_logits,) = torch.autograd.grad(losses, leaf, grad.to(losses.dtype))
    return losses, grad_logits


def kernel(logits: Tensor, targets: Tensor, softcap: float) -> Tensor:
    return op.softcapped_ce(logits, targets, softcap)[0]


def test_reference_is_the_written_formula() -> None:
    logits, targets, _ = make(4, 11, torch.float64, torch.device("cpu"))
    for row, target, loss in zip(logits, targets, softcapped_cross_entropy(logits, targets, 7.0), strict=True):
        capped = [7.0 * math.tanh(value / 7.0) for value in row.tolist()]
        expected = math.log(sum(math.exp(value) for value in capped)) - capped[target]
        assert math.isclose(loss.item(), expected, rel_tol=1e-12)


def test_reference_gradients_match_finite_differences() -> None:
    logits, targets, _ = make(3, 9, torch.float64, torch.device("cpu"), scale=4.0)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: softcapped_cross_entropy(x, targets, 5.0), logits)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, targets), logits)


def test_a_high_cap_is_no_cap() -> None:
    logits, targets, _ = make(8, 50, torch.float32, torch.device("cpu"))
    torch.testing.assert_close(softcapped_cross_entropy(logits, targets, 1e6), cross_entropy(logits, targets))


@pytest.mark.parametrize("softcap", [0.0, -3.0, math.inf, math.nan])
def test_a_cap_that_is_none_is_refused(softcap: float) -> None:
    logits, targets, _ = make(2, 5, torch.float32, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"softcap is .*call cross_entropy"):
        softcapped_cross_entropy(logits, targets, softcap)


def test_misfits_are_one_line_errors() -> None:
    logits, targets, _ = make(4, 5, torch.float32, torch.device("cpu"))
    for bad_logits, bad_targets, message in [
        (logits[None], targets, r"logits \(1, 4, 5\)"),
        (logits, targets[:3], r"targets \(3,\)"),
        (logits.long(), targets, "torch.int64"),
        (logits, targets.float(), "torch.float32"),
    ]:
        with pytest.raises(ConfigError, match=message) as failure:
            softcapped_cross_entropy(bad_logits, bad_targets, 30.0)
        assert "\n" not in str(failure.value)


def test_no_target_is_ignored() -> None:
    logits, targets, _ = make(4, 5, torch.float32, torch.device("cpu"))
    targets[1] = -100
    with pytest.raises(IndexError):
        cross_entropy(logits, targets)


def test_the_fallback_is_said_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_said", set())
    logits, targets, _ = make(4, 5, torch.float32, torch.device("cpu"))
    with caplog.at_level(logging.INFO, logger="underpar.kernels"):
        for _ in range(3):
            softcapped_cross_entropy(logits, targets, 30.0)
    assert [record.message for record in caplog.records] == [
        "softcapped_cross_entropy: plain torch, because tensors are on cpu"
    ]


def test_public_function_is_one_graph() -> None:
    logits, targets, grad = make(6, 40, torch.float32, torch.device("cpu"))
    compiled = torch.compile(softcapped_cross_entropy, fullgraph=True, dynamic=False, backend="aot_eager")
    for out, expected in zip(
        with_gradient(compiled, logits, targets, 30.0, grad),
        with_gradient(softcapped_cross_entropy, logits, targets, 30.0, grad),
        strict=True,
    ):
        torch.testing.assert_close(out, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("softcap", [30.0, op.NO_CAP])
@pytest.mark.parametrize(("rows", "vocab"), SHAPES)
def test_kernel_parity(rows, vocab, dtype, softcap, kernel_device, assert_no_worse) -> None:
    logits, targets, grad = make(rows, vocab, dtype, kernel_device)
    losses, grad_logits = with_gradient(kernel, logits, targets, softcap, grad)
    plain, plain_grad = with_gradient(reference, logits, targets, softcap, grad)
    exact, exact_grad = with_gradient(reference, logits.double(), targets, softcap, grad.double())
    assert losses.dtype == torch.float32
    assert_no_worse(losses, plain, exact, LOSS_SLACK, LOSS_FLOOR)
    floor = FP32_GRAD_ERROR if dtype == torch.float32 else None
    assert_no_worse(grad_logits, plain_grad, exact_grad, NARROW_GRAD_SLACK, floor)


@pytest.mark.gpu
def test_kernel_reads_strided_rows_and_an_expanded_gradient(kernel_device) -> None:
    wide, targets, _ = make(7, 300, torch.float32, kernel_device)
    logits = wide[:, :200].requires_grad_()
    targets = targets % 200
    kernel(logits, targets, 30.0).mean().backward()
    dense = wide[:, :200].detach().contiguous().requires_grad_()
    reference(dense, targets, 30.0).mean().backward()
    torch.testing.assert_close(wide.grad if wide.grad is not None else logits.grad, dense.grad)


@pytest.mark.gpu
def test_kernel_survives_extreme_logits(kernel_device) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-3e38, 3e38, 1.0]], device=kernel_device)
    targets = torch.tensor([1, 1], device=kernel_device)
    grad = torch.ones(2, device=kernel_device)
    for softcap in (30.0, op.NO_CAP):
        losses, grad_logits = with_gradient(kernel, logits, targets, softcap, grad)
        expected, expected_grad = with_gradient(reference, logits, targets, softcap, grad)
        torch.testing.assert_close(losses, expected)
        torch.testing.assert_close(grad_logits, expected_grad)


@pytest.mark.gpu
def test_a_target_outside_the_vocabulary_gives_nan(kernel_device) -> None:
    logits, targets, _ = make(4, 50, torch.float32, kernel_device)
    targets[1], targets[2] = 50, -1
    assert kernel(logits, targets, 30.0).isnan().tolist() == [False, True, True, False]


@pytest.mark.gpu
def test_operators_are_well_formed(kernel_device) -> None:
    logits, targets, grad = make(5, 70, torch.float32, kernel_device)
    torch.library.opcheck(op.softcapped_ce, (logits.requires_grad_(), targets, 30.0))
    lse = op.softcapped_ce(logits, targets, 30.0)[1].detach()
    torch.library.opcheck(op.softcapped_ce_backward, (grad, logits.detach(), targets, lse, 30.0))


@pytest.mark.gpu
@pytest.mark.parametrize("softcap", [30.0, op.NO_CAP])
def test_real_shape_compiles_to_one_graph(softcap, cuda, assert_no_worse) -> None:
    logits, targets, grad = make(65_536, 1024, torch.bfloat16, cuda)

    def public(logits: Tensor, targets: Tensor, softcap: float) -> Tensor:
        return softcapped_cross_entropy(logits, targets, softcap) if softcap else cross_entropy(logits, targets)

    compiled = torch.compile(public, fullgraph=True, dynamic=False)
    losses, grad_logits = with_gradient(compiled, logits, targets, softcap, grad)
    plain, plain_grad = with_gradient(reference, logits, targets, softcap, grad)
    exact, exact_grad = with_gradient(reference, logits.double(), targets, softcap, grad.double())
    assert_no_worse(losses, plain, exact, LOSS_SLACK, LOSS_FLOOR)
    assert_no_worse(grad_logits, plain_grad, exact_grad, NARROW_GRAD_SLACK)
