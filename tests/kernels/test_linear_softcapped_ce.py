"""Head projection with soft-capped cross-entropy: the reference against its formula, the operators against float64."""

import math

import pytest
import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.linear_softcapped_ce import linear_softcapped_cross_entropy, op, ref

SOFTCAP = 30.0
LOSS_SLACK = 8.0
"""As in softcapped_ce: the shifted cap works with numbers up to twice as large."""
GRAD_SLACK = {"general": 1.1, "same_gradient": 2.0}
"""The gradients of the sum are rounded, then scaled and rounded again."""
GRAD_FLOOR = 4e-6
"""In fp32 the products' own rounding and the log-sum-exp's: see softcapped_ce."""

# (rows, dim, vocabulary, rows of a chunk), each with its reason.
SHAPES = [
    pytest.param((11, 16, 64, 4), id="last-chunk-cut-short"),
    pytest.param((6, 24, 260, 6), id="one-chunk-padded-vocabulary"),
    pytest.param((5, 8, 8193, 3), id="vocabulary-over-the-registers"),
    pytest.param((0, 8, 64, 4), id="no-rows"),
]
WAYS = {"general": op.linear_softcapped_ce, "same_gradient": op.linear_softcapped_ce_same_gradient}


def make(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states and a weight that bring the logits near the cap, and targets."""
    rows, dim, vocab = shape[:3]
    generator = torch.Generator().manual_seed(sum(shape))
    hidden = torch.randn(rows, dim, generator=generator).to(dtype).to(device)
    weight = (12 / dim**0.5 * torch.randn(vocab, dim, generator=generator)).to(dtype).to(device)
    return hidden, weight, torch.randint(vocab, (rows,), generator=generator).to(device)


def results(function, hidden: Tensor, weight: Tensor, targets: Tensor, grad: Tensor | float) -> tuple[Tensor, ...]:
    """Losses and the gradients of hidden and weight."""
    leaves = [x.detach().clone().requires_grad_() for x in (hidden, weight)]
    losses = function(*leaves, targets)
    grad = torch.as_tensor(grad, dtype=losses.dtype, device=losses.device).expand(losses.shape)
    return losses, *torch.autograd.grad(losses, leaves, grad)


def reference(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return ref.linear_softcapped_cross_entropy(hidden, weight, targets, SOFTCAP)


def test_reference_is_the_written_formula() -> None:
    hidden, weight, targets = make((3, 4, 7), torch.float64, torch.device("cpu"))
    losses = linear_softcapped_cross_entropy(hidden, weight, targets, 5.0)
    for row, target, loss in zip(hidden.tolist(), targets.tolist(), losses.tolist(), strict=True):
        logits = [sum(a * b for a, b in zip(row, column, strict=True)) for column in weight.tolist()]
        capped = [5.0 * math.tanh(logit / 5.0) for logit in logits]
        assert math.isclose(loss, math.log(sum(math.exp(x) for x in capped)) - capped[target], rel_tol=1e-12)


def test_an_fp32_weight_follows_narrow_hidden_states() -> None:
    hidden, weight, targets = make((3, 8, 20), torch.float32, torch.device("cpu"))
    weight.requires_grad_()
    linear_softcapped_cross_entropy(hidden.bfloat16(), weight, targets, SOFTCAP, same_gradient=True).mean().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_misfits_are_one_line_errors() -> None:
    hidden, weight, targets = make((4, 8, 20), torch.float32, torch.device("cpu"))
    for arguments, message in [
        ((hidden[:, :7], weight, targets, SOFTCAP), r"hidden \(4, 7\)"),
        ((hidden, weight, targets[:3], SOFTCAP), r"targets \(3,\)"),
        ((hidden, weight.long(), targets, SOFTCAP), "weight torch.int64"),
        ((hidden, weight, targets.float(), SOFTCAP), "torch.float32"),
        ((hidden, weight, targets, 0.0), "softcap is 0.0"),
    ]:
        with pytest.raises(ConfigError, match=message) as failure:
            linear_softcapped_cross_entropy(*arguments)
        assert "\n" not in str(failure.value)


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_parity(shape, way, dtype, kernel_device, assert_no_worse) -> None:
    inputs = make(shape, dtype, kernel_device)
    grad = 0.37 if way == "same_gradient" else torch.linspace(-1, 1, shape[0], device=kernel_device)

    def chunked(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return WAYS[way](hidden, weight, targets, SOFTCAP, shape[3])[0]

    ours = results(chunked, *inputs, grad)
    plain = results(reference, *inputs, grad)
    exact = results(reference, *(x.double() if x.is_floating_point() else x for x in inputs), grad)
    # Logits rounded to 16 bits dominate the losses' error; in fp32 it is the cap's.
    assert_no_worse(ours[0], plain[0], exact[0], LOSS_SLACK if dtype == torch.float32 else 1.1)
    for out, plain_out, exact_out in zip(ours[1:], plain[1:], exact[1:], strict=True):
        assert_no_worse(out, plain_out, exact_out, GRAD_SLACK[way], GRAD_FLOOR if dtype == torch.float32 else None)


@pytest.mark.gpu
def test_a_high_cap_finds_its_own_maximum(kernel_device, assert_no_worse) -> None:
    hidden, weight, targets = make((6, 16, 100), torch.float32, kernel_device)

    def chunked(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return op.linear_softcapped_ce_same_gradient(hidden, weight, targets, 500.0, 4)[0]

    def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return ref.linear_softcapped_cross_entropy(hidden, weight, targets, 500.0)

    ours = results(chunked, hidden, weight, targets, 1.0)
    for out, expected in zip(ours, results(plain, hidden.double(), weight.double(), targets, 1.0), strict=True):
        torch.testing.assert_close(out.double(), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.gpu
def test_a_broken_promise_is_not_a_gradient(kernel_device) -> None:
    hidden, weight, targets = make((6, 16, 100), torch.float32, kernel_device)
    hidden.requires_grad_()
    losses = op.linear_softcapped_ce_same_gradient(hidden, weight, targets, SOFTCAP, 4)[0]
    (losses * torch.arange(6, device=kernel_device)).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.isnan().all()


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_a_target_outside_the_vocabulary_gives_nan(way, kernel_device) -> None:
    hidden, weight, targets = make((4, 8, 50), torch.float32, kernel_device)
    targets[1], targets[2] = 50, -1
    losses = WAYS[way](hidden, weight, targets, SOFTCAP, 4)[0]
    assert losses.isnan().tolist() == [False, True, True, False]


@pytest.mark.gpu
def test_operators_are_well_formed(kernel_device) -> None:
    hidden, weight, targets = make((5, 8, 70), torch.float32, kernel_device)
    lse = op.linear_softcapped_ce(hidden, weight, targets, SOFTCAP, 2)[1]
    torch.library.opcheck(
        op.linear_softcapped_ce_backward, (torch.ones_like(lse), hidden, weight, targets, lse, SOFTCAP, 2)
    )
    leaves = [x.requires_grad_() for x in (hidden, weight)]
    for operator in WAYS.values():
        torch.library.opcheck(operator, (*leaves, targets, SOFTCAP, 2))


@pytest.mark.gpu
@pytest.mark.parametrize("same_gradient", [False, True])
def test_real_shape_compiles_to_one_graph(same_gradient, cuda, assert_no_worse) -> None:
    inputs = make((20_001, 512, 8192), torch.bfloat16, cuda)
    compiled = torch.compile(linear_softcapped_cross_entropy, fullgraph=True, dynamic=False)

    def public(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return compiled(hidden, weight, targets, SOFTCAP, same_gradient=same_gradient)

    ours = results(public, *inputs, 1 / 20_001)
    plain = results(reference, *inputs, 1 / 20_001)
    exact = results(reference, *(x.double() if x.is_floating_point() else x for x in inputs), 1 / 20_001)
    for out, plain_out, exact_out in zip(ours, plain, exact, strict=True):
        assert_no_worse(out, plain_out, exact_out, GRAD_SLACK["same_gradient"])
