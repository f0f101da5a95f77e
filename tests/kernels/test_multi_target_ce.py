"""Several targets a row under a sigmoid cap: the reference against its formula, the kernel against float64."""

import math

import pytest
import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.multi_target_ce import Cap, multi_target_cross_entropy, op, ref

# The interpreter is numpy, which warns when a number overflows to infinity on its way to the right answer.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

CAP = Cap(23.0, 5.0, 7.5)
LOSS_SLACK, LOSS_FLOOR = 8.0, 3e-7
FP32_GRAD_ERROR = 3e-6
"""The log-sum-exp is one fp32 number up to the cap's scale; half of its last place is a relative error of probabilities."""

# (rows, vocabulary, positions of a row of text, targets), each with its reason.
SHAPES = [
    pytest.param(1, 3, 1, 1, id="one-position"),
    pytest.param(6, 50, 6, 3, id="one-packed-row"),
    pytest.param(8, 70, 4, 2, id="two-rows"),
    pytest.param(5, 40, 5, 8, id="more-targets-than-positions"),
    pytest.param(3, 1025, 3, 3, id="one-over-a-block"),
    pytest.param(2, 2500, 2, 1, id="streams"),
    pytest.param(0, 64, 4, 2, id="no-rows"),
]


def make(rows: int, vocab: int, targets: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(rows * 31 + vocab)
    logits = (12 * torch.randn(rows, vocab, generator=generator)).to(dtype).to(device)
    wanted = torch.randint(vocab, (rows,), generator=generator).to(device)
    weights = torch.tensor([1.0, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01])[:targets].to(device)
    return logits, wanted, weights, torch.randn(rows, generator=generator).to(device)


def with_gradient(function, logits: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    losses = function(leaf)
    (grad_logits,) = torch.autograd.grad(losses, leaf, grad.to(losses.dtype))
    return losses, grad_logits


def test_reference_is_the_written_formula() -> None:
    logits, targets, weights, _ = make(7, 11, 3, torch.float64, torch.device("cpu"))
    losses = ref.multi_target_cross_entropy(logits, targets, weights, CAP, 7)
    for t in range(7):
        capped = [23 / (1 + math.exp(-(value + 5) / 7.5)) for value in logits[t].tolist()]
        total = math.log(sum(math.exp(value) for value in capped))
        later = [(k, int(targets[t + k])) for k in range(3) if t + k < 7]
        wanted = sum(float(weights[k]) * (total - capped[target]) for k, target in later)
        assert math.isclose(losses[t].item(), wanted, rel_tol=1e-7)


def test_terms_stop_at_the_end_of_their_row() -> None:
    logits, targets, weights, _ = make(8, 20, 3, torch.float64, torch.device("cpu"))
    together = ref.multi_target_cross_entropy(logits, targets, weights, CAP, 4)
    alone = [ref.multi_target_cross_entropy(logits[i : i + 4], targets[i : i + 4], weights, CAP, 4) for i in (0, 4)]
    assert torch.equal(together, torch.cat(alone))


def test_one_target_under_a_symmetric_cap_is_the_soft_capped_loss() -> None:
    """30 tanh(z / 30) = 60 sigmoid(z / 15) - 30, and a constant is not seen."""
    from underpar.kernels.softcapped_ce import softcapped_cross_entropy

    logits, targets, weights, _ = make(6, 30, 1, torch.float64, torch.device("cpu"))
    found = multi_target_cross_entropy(logits, targets, weights, Cap(60.0, 0.0, 15.0))
    torch.testing.assert_close(found, softcapped_cross_entropy(logits, targets, 30.0))


def test_reference_gradients_match_finite_differences() -> None:
    logits, targets, weights, _ = make(4, 9, 2, torch.float64, torch.device("cpu"))
    assert torch.autograd.gradcheck(
        lambda x: multi_target_cross_entropy(x, targets, weights.double(), CAP), logits.requires_grad_()
    )


@pytest.mark.parametrize(("rows", "vocab", "row_tokens", "count"), SHAPES)
def test_the_gradient_by_formula_is_that_of_autograd(rows: int, vocab: int, row_tokens: int, count: int) -> None:
    logits, targets, weights, grad = make(rows, vocab, count, torch.float32, torch.device("cpu"))
    _, wanted = with_gradient(
        lambda x: ref.multi_target_cross_entropy(x, targets, weights, CAP, row_tokens), logits, grad
    )
    found = ref.multi_target_gradient(grad, logits, targets, weights, CAP, row_tokens)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_misfits_are_one_line_errors() -> None:
    logits, targets, weights, _ = make(4, 5, 2, torch.float32, torch.device("cpu"))
    for arguments, message in [
        ((logits, targets[:3], weights, CAP), r"targets \(3,\)"),
        ((logits, targets, weights[:0], CAP), r"weights are \(0,\)"),
        ((logits, targets.float(), weights, CAP), "torch.float32"),
        ((logits, targets, weights, CAP, 3), "no whole number of rows of 3"),
    ]:
        with pytest.raises(ConfigError, match=message):
            multi_target_cross_entropy(*arguments)


def test_new_weights_are_no_new_graph() -> None:
    logits, targets, weights, _ = make(6, 40, 2, torch.float32, torch.device("cpu"))
    traced = []

    def count(module: torch.fx.GraphModule, _: object) -> object:
        traced.append(module)
        return module

    compiled = torch.compile(
        lambda w: multi_target_cross_entropy(logits, targets, w, CAP), backend=count, fullgraph=True
    )
    for share in (1.0, 0.7, 0.3):
        torch.testing.assert_close(
            compiled(weights * share), multi_target_cross_entropy(logits, targets, weights * share, CAP)
        )
    assert len(traced) == 1


@pytest.mark.gpu
@pytest.mark.parametrize(("rows", "vocab", "row_tokens", "count"), SHAPES)
def test_kernel_parity(rows, vocab, row_tokens, count, dtype, kernel_device, assert_no_worse) -> None:
    logits, targets, weights, grad = make(rows, vocab, count, dtype, kernel_device)

    def kernel(x: Tensor) -> Tensor:
        return op.multi_target_ce(x, targets, weights, *CAP, row_tokens)[0]

    def plain(x: Tensor) -> Tensor:
        return ref.multi_target_cross_entropy(x, targets, weights.to(x.dtype), CAP, row_tokens)

    losses, grad_logits = with_gradient(kernel, logits, grad)
    plain_losses, plain_grad = with_gradient(
        lambda x: ref.multi_target_cross_entropy(x, targets, weights, CAP, row_tokens), logits, grad
    )
    exact, exact_grad = with_gradient(plain, logits.double(), grad.double())
    assert losses.dtype == torch.float32
    assert_no_worse(losses, plain_losses, exact, LOSS_SLACK, LOSS_FLOOR)
    floor = FP32_GRAD_ERROR if dtype == torch.float32 else None
    assert_no_worse(grad_logits, plain_grad, exact_grad, 1.1, floor)


@pytest.mark.gpu
def test_kernel_reads_strided_rows_and_an_expanded_gradient(kernel_device) -> None:
    wide, targets, weights, _ = make(6, 90, 2, torch.float32, kernel_device)
    targets = targets % 60
    strided = wide[:, :60].requires_grad_()
    op.multi_target_ce(strided, targets, weights, *CAP, 6)[0].mean().backward()
    dense = wide[:, :60].detach().contiguous().requires_grad_()
    ref.multi_target_cross_entropy(dense, targets, weights, CAP, 6).mean().backward()
    torch.testing.assert_close(strided.grad, dense.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.gpu
def test_kernel_survives_extreme_logits(kernel_device) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-3e38, 3e38, 1.0]], device=kernel_device)
    targets, weights = torch.tensor([1, 1], device=kernel_device), torch.tensor([1.0, 0.5], device=kernel_device)
    ones = torch.ones(2, device=kernel_device)
    found = with_gradient(lambda x: op.multi_target_ce(x, targets, weights, *CAP, 2)[0], logits, ones)
    wanted = with_gradient(lambda x: ref.multi_target_cross_entropy(x, targets, weights, CAP, 2), logits, ones)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_a_target_outside_the_vocabulary_gives_nan(kernel_device) -> None:
    logits, targets, weights, _ = make(4, 50, 1, torch.float32, kernel_device)
    targets[1], targets[2] = 50, -1
    losses = op.multi_target_ce(logits, targets, weights, *CAP, 4)[0]
    assert losses.isnan().tolist() == [False, True, True, False]


@pytest.mark.gpu
def test_operators_are_well_formed(kernel_device) -> None:
    logits, targets, weights, grad = make(4, 70, 2, torch.float32, kernel_device)
    arguments = (logits.requires_grad_(), targets, weights, *CAP, 4)
    torch.library.opcheck(op.multi_target_ce, arguments)
    lse = op.multi_target_ce(*arguments)[1].detach()
    torch.library.opcheck(op.multi_target_ce_backward, (grad, logits.detach(), targets, weights, lse, *CAP, 4))
