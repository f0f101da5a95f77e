"""Projection and loss as operators that torch.compile keeps whole, in chunks of rows, so that all logits never exist at once.

Two ways to the gradients. In general they need the gradient of every loss, which is known in the backward alone: the forward
keeps a log-sum-exp a row and the backward forms the logits again, one product more. When all losses get the same gradient,
as under a mean, the forward can form the gradients of their sum while a chunk's logits are at hand; the backward scales them.
"""

import functools
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("underpar::linear_softcapped_ce", mutates_args=())
def linear_softcapped_ce(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, chunk_rows: int
) -> tuple[Tensor, Tensor]:
    """Losses and shifted log-sum-exps, (N,) fp32. hidden (N, D), weight (V, D) of one dtype."""
    from underpar.kernels.softcapped_ce.triton import launch_forward

    losses = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
    lse = torch.empty_like(losses)
    with torch.cuda.device_of(hidden):
        for rows, logits in _chunks_of_logits(hidden, weight, chunk_rows):
            losses[rows], lse[rows] = launch_forward(logits, targets[rows], softcap)
    return losses, lse


@linear_softcapped_ce.register_fake
def _(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, chunk_rows: int) -> tuple[Tensor, Tensor]:
    losses = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
    return losses, torch.empty_like(losses)


@torch.library.custom_op("underpar::linear_softcapped_ce_backward", mutates_args=())
def linear_softcapped_ce_backward(
    grad_losses: Tensor, hidden: Tensor, weight: Tensor, targets: Tensor, lse: Tensor, softcap: float, chunk_rows: int
) -> tuple[Tensor, Tensor]:
    """Gradients of hidden, in its dtype, and of weight, summed in fp32 and returned so."""
    from underpar.kernels.softcapped_ce.triton import launch_backward

    grad_hidden, grad_weight = _empty_gradients(hidden, weight)
    grad_weight.zero_()
    with torch.cuda.device_of(hidden):
        for rows, logits in _chunks_of_logits(hidden, weight, chunk_rows):
            launch_backward(grad_losses[rows], logits, targets[rows], lse[rows], softcap, out=logits)
            torch.mm(logits, weight, out=grad_hidden[rows])
            _add_product(grad_weight, logits.t(), hidden[rows])
    return grad_hidden, grad_weight


@linear_softcapped_ce_backward.register_fake
def _(
    grad_losses: Tensor, hidden: Tensor, weight: Tensor, targets: Tensor, lse: Tensor, softcap: float, chunk_rows: int
) -> tuple[Tensor, Tensor]:
    return _empty_gradients(hidden, weight)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    hidden, weight, targets, ctx.softcap, ctx.chunk_rows = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(hidden, weight, targets, output[1])


def _backward(ctx: Any, grad_losses: Tensor, _lse: Tensor | None) -> tuple[Tensor | None, ...]:
    hidden, weight, targets, lse = ctx.saved_tensors
    grad_hidden, grad_weight = linear_softcapped_ce_backward(
        grad_losses, hidden, weight, targets, lse, ctx.softcap, ctx.chunk_rows
    )
    return grad_hidden, grad_weight.to(weight.dtype), None, None, None


linear_softcapped_ce.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("underpar::linear_softcapped_ce_same_gradient", mutates_args=())
def linear_softcapped_ce_same_gradient(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, chunk_rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (N,) fp32, and of their sum the gradients of hidden, in its dtype, and of weight, in fp32."""
    from underpar.kernels.linear_softcapped_ce.triton import replace_by_gradient

    losses = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
    grad_hidden, grad_weight = _empty_gradients(hidden, weight)
    grad_weight.zero_()
    with torch.cuda.device_of(hidden):
        for rows, logits in _chunks_of_logits(hidden, weight, chunk_rows):
            replace_by_gradient(logits, targets[rows], losses[rows], softcap)
            torch.mm(logits, weight, out=grad_hidden[rows])
            _add_product(grad_weight, logits.t(), hidden[rows])
    return losses, grad_hidden, grad_weight


@linear_softcapped_ce_same_gradient.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, chunk_rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    return hidden.new_empty(hidden.shape[0], dtype=torch.float32), *_empty_gradients(hidden, weight)


def _setup_same_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, grad_hidden, grad_weight = output
    ctx.weight_dtype = inputs[1].dtype
    ctx.mark_non_differentiable(grad_hidden, grad_weight)
    ctx.save_for_backward(grad_hidden, grad_weight)


def _backward_same_gradient(ctx: Any, grad_losses: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_hidden, grad_weight = ctx.saved_tensors
    if grad_losses.shape[0]:
        # The promise is checked where it can be without waiting for the device: broken, it gives NaN.
        same = (grad_losses == grad_losses[0]).all()
        scale = torch.where(same, grad_losses[0], float("nan"))
        # In fp32: as a bf16 number the scale itself would be off by up to a part in 512.
        grad_hidden = (grad_hidden.float() * scale).to(grad_hidden.dtype)
        grad_weight = grad_weight * scale
    return grad_hidden, grad_weight.to(ctx.weight_dtype), None, None, None


linear_softcapped_ce_same_gradient.register_autograd(_backward_same_gradient, setup_context=_setup_same_gradient)


def _empty_gradients(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return hidden.new_empty(hidden.shape), weight.new_empty(weight.shape, dtype=torch.float32)


def _chunks_of_logits(hidden: Tensor, weight: Tensor, chunk_rows: int) -> Any:
    """Slices of rows, each with its logits, contiguous and in one buffer that the next chunk overwrites."""
    num_rows = hidden.shape[0]
    buffer = hidden.new_empty((min(chunk_rows, num_rows), weight.shape[0]))
    for start in range(0, num_rows, chunk_rows):
        rows = slice(start, min(start + chunk_rows, num_rows))
        logits = buffer[: rows.stop - start]
        torch.mm(hidden[rows], weight.t(), out=logits)
        yield rows, logits


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b with total in fp32 and a, b of one dtype."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    elif not a.is_cuda:  # a CPU multiplies 16-bit matrices into 16 bits only
        total.addmm_(a.float(), b.float())
    elif _adds_to_fp32(a.device, a.dtype):
        torch.ops.aten.addmm.dtype_out(total, a, b, torch.float32, out=total)
    else:
        total.add_(torch.mm(a, b, out_dtype=torch.float32))


@functools.cache
def _adds_to_fp32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch adds a product of 16-bit matrices to an fp32 one in one call; some want all three of one dtype."""
    product, total = torch.ones(16, 16, dtype=dtype, device=device), torch.ones(16, 16, device=device)
    try:
        torch.ops.aten.addmm.dtype_out(total, product, product, torch.float32, out=total)
    except RuntimeError:
        return False
    return True
