"""The head's product in fp8 and the loss behind it, as operators that torch.compile keeps whole.

Forward: hidden states and weight in e4m3, logits in bf16. Backward: the gradient of the logits in e5m2, written by the loss
kernel, then two fp8 products. On Hopper these are `torch._scaled_mm`, which takes its first operand by rows and its second by
columns, so that each of the three matrices is needed turned round as well.
"""

from typing import Any

import torch
from torch import Tensor

from underpar.kernels.dispatch import why_not_triton
from underpar.kernels.fp8_head import ref
from underpar.kernels.multi_target_ce import ref as loss_ref
from underpar.kernels.multi_target_ce.ref import Cap


@torch.library.custom_op("underpar::fp8_head", mutates_args=())
def fp8_head(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    scale: float,
    shift: float,
    divisor: float,
    row_tokens: int,
    hidden_unit: float,
    weight_unit: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Losses (N,) fp32, then what the backward pass needs: log-sum-exp, logits, and both operands in fp8, turned."""
    cap = Cap(scale, shift, divisor)
    (hidden8, hidden8_turned), (weight8, weight8_turned) = (
        _both_ways(hidden, hidden_unit),
        _both_ways(weight, weight_unit),
    )
    units = _one(hidden_unit, hidden), _one(weight_unit, hidden)
    logits = _product(hidden8, weight8.t(), *units, torch.bfloat16, fast=True)
    losses, lse = _loss(logits, targets, weights, cap, row_tokens)
    return losses, lse, logits, hidden8_turned, weight8_turned


@fp8_head.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, *constants: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    losses = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
    logits = hidden.new_empty(hidden.shape[0], weight.shape[0], dtype=torch.bfloat16)
    operands = (torch.empty(t.shape[::-1], dtype=ref.E4M3, device=t.device) for t in (hidden, weight))
    return losses, torch.empty_like(losses), logits, *operands  # type: ignore[return-value]


@torch.library.custom_op("underpar::fp8_head_backward", mutates_args=())
def fp8_head_backward(
    grad_losses: Tensor,
    lse: Tensor,
    logits: Tensor,
    hidden8_turned: Tensor,
    weight8_turned: Tensor,
    targets: Tensor,
    weights: Tensor,
    scale: float,
    shift: float,
    divisor: float,
    row_tokens: int,
    hidden_unit: float,
    weight_unit: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of hidden states (N, D) in bf16 and of the weight (V, D) in fp32.

    The unit of the e5m2 gradient follows the largest gradient that comes in: whatever a caller does to the losses, gradients
    are scaled alike and codes keep their range.
    """
    cap = Cap(scale, shift, divisor)
    unit = (grad_losses.abs().amax() * (cap.steepest / ref.LARGEST_E4M3)).clamp_min(1e-30).reshape(1)
    grad8, grad8_turned = _grad_logits(grad_losses, logits, targets, weights, lse, cap, row_tokens, unit)
    units = _one(hidden_unit, logits), _one(weight_unit, logits)
    grad_hidden = _product(grad8, weight8_turned.t(), unit, units[1], torch.bfloat16, fast=False)
    grad_weight = _product(grad8_turned, hidden8_turned.t(), unit, units[0], torch.float32, fast=False)
    return grad_hidden, grad_weight


@fp8_head_backward.register_fake
def _(
    grad_losses: Tensor, lse: Tensor, logits: Tensor, hidden8_turned: Tensor, weight8_turned: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty(hidden8_turned.shape[::-1], dtype=torch.bfloat16, device=logits.device),
        torch.empty(weight8_turned.shape[::-1], dtype=torch.float32, device=logits.device),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, weight, targets, weights, *ctx.constants = inputs
    ctx.dtypes = hidden.dtype, weight.dtype
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:], targets, weights)


def _backward(ctx: Any, grad_losses: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_hidden, grad_weight = fp8_head_backward(grad_losses, *ctx.saved_tensors, *ctx.constants)
    hidden_dtype, weight_dtype = ctx.dtypes
    return (grad_hidden.to(hidden_dtype), grad_weight.to(weight_dtype), *([None] * 8))


fp8_head.register_autograd(_backward, setup_context=_setup_context)


# ------------------------------------------------------------------------------------------------- parts


def _product(a: Tensor, b: Tensor, unit_a: Tensor, unit_b: Tensor, dtype: torch.dtype, *, fast: bool) -> Tensor:
    if not a.is_cuda:
        return ref.product(a, b, unit_a, unit_b, dtype)
    return torch._scaled_mm(a, b, scale_a=unit_a, scale_b=unit_b, out_dtype=dtype, use_fast_accum=fast)


def _loss(logits: Tensor, targets: Tensor, weights: Tensor, cap: Cap, row_tokens: int) -> tuple[Tensor, Tensor]:
    if why_not_triton(logits) is None:
        from underpar.kernels.multi_target_ce.triton import launch_forward

        with torch.cuda.device_of(logits):
            return launch_forward(logits, targets, weights, cap, row_tokens)
    losses = loss_ref.multi_target_cross_entropy(logits, targets, weights, cap, row_tokens)
    return losses, torch.logsumexp(cap(logits.float()), dim=-1)


def _grad_logits(
    grad_losses: Tensor,
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    lse: Tensor,
    cap: Cap,
    row_tokens: int,
    unit: Tensor,
) -> tuple[Tensor, Tensor]:
    if why_not_triton(logits) is None:
        from underpar.kernels.fp8_head.triton import launch_turn
        from underpar.kernels.multi_target_ce.triton import launch_backward

        with torch.cuda.device_of(logits):
            grad8 = launch_backward(grad_losses, logits, targets, weights, lse, cap, row_tokens, unit, ref.E5M2)
            return grad8, launch_turn(grad8)
    grad = loss_ref.multi_target_gradient(grad_losses, logits, targets, weights, cap, row_tokens)
    return _beside_its_transpose(ref.quantise(grad, unit, ref.E5M2))


def _one(value: float, like: Tensor) -> Tensor:
    return torch.full((1,), value, device=like.device)


def _both_ways(values: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """A matrix in e4m3, by rows and turned."""
    if why_not_triton(values) is None:
        from underpar.kernels.fp8_head.triton import launch_quantise, launch_turn

        with torch.cuda.device_of(values):
            codes = launch_quantise(values, unit, ref.E4M3, ref.LARGEST_E4M3)
            return codes, launch_turn(codes)
    return _beside_its_transpose(ref.quantise(values, unit))


def _beside_its_transpose(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """As bytes: copies of fp8 are not everywhere implemented."""
    return matrix, matrix.view(torch.uint8).t().contiguous().view(matrix.dtype)
