"""The kernel as operators that torch.compile keeps whole. The forward saves the log-sum-exp of every row."""

from typing import Any

import torch
from torch import Tensor

from underpar.kernels.multi_target_ce.ref import Cap


@torch.library.custom_op("underpar::multi_target_ce", mutates_args=())
def multi_target_ce(
    logits: Tensor, targets: Tensor, weights: Tensor, scale: float, shift: float, divisor: float, row_tokens: int
) -> tuple[Tensor, Tensor]:
    """Losses (N,) fp32 and the log-sum-exp (N,) fp32 of the capped logits."""
    from underpar.kernels.multi_target_ce.triton import launch_forward

    with torch.cuda.device_of(logits):
        return launch_forward(logits, targets, weights, Cap(scale, shift, divisor), row_tokens)


@multi_target_ce.register_fake
def _(
    logits: Tensor, targets: Tensor, weights: Tensor, scale: float, shift: float, divisor: float, row_tokens: int
) -> tuple[Tensor, Tensor]:
    rows = logits.new_empty(logits.shape[0], dtype=torch.float32)
    return rows, torch.empty_like(rows)


@torch.library.custom_op("underpar::multi_target_ce_backward", mutates_args=())
def multi_target_ce_backward(
    grad_losses: Tensor,
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    lse: Tensor,
    scale: float,
    shift: float,
    divisor: float,
    row_tokens: int,
) -> Tensor:
    """Gradient of the logits, contiguous (N, V) in their dtype."""
    from underpar.kernels.multi_target_ce.triton import launch_backward

    cap, unit = Cap(scale, shift, divisor), torch.ones(1, device=logits.device)
    with torch.cuda.device_of(logits):
        return launch_backward(grad_losses, logits, targets, weights, lse, cap, row_tokens, unit, logits.dtype)


@multi_target_ce_backward.register_fake
def _(
    grad_losses: Tensor,
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    lse: Tensor,
    scale: float,
    shift: float,
    divisor: float,
    row_tokens: int,
) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, targets, weights, *ctx.constants = inputs
    lse = output[1]
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(logits, targets, weights, lse)


def _backward(ctx: Any, grad_losses: Tensor, _grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    logits, targets, weights, lse = ctx.saved_tensors
    grad = multi_target_ce_backward(grad_losses, logits, targets, weights, lse, *ctx.constants)
    return (grad, *([None] * 6))


multi_target_ce.register_autograd(_backward, setup_context=_setup_context)
