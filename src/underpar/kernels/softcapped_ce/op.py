"""The kernel as operators that torch.compile keeps whole: what they return, their shapes, their gradient.

The forward saves only the log-sum-exp of every row. Writing the gradient in the forward instead would spare one reading
of the logits, but the gradient of the mean has then to be scaled in a pass of its own: two readings and two writings
against two readings and one writing here.
"""

from typing import Any

import torch
from torch import Tensor

NO_CAP = 0.0
"""The `softcap` that stands for plain cross-entropy inside the operators, whose schema has no optional float."""


@torch.library.custom_op("underpar::softcapped_ce", mutates_args=())
def softcapped_ce(logits: Tensor, targets: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    """Losses (N,) fp32 and the log-sum-exp (N,) fp32 of the capped logits, shifted up by `softcap`."""
    from underpar.kernels.softcapped_ce.triton import launch_forward

    with torch.cuda.device_of(logits):
        return launch_forward(logits, targets, softcap)


@softcapped_ce.register_fake
def _(logits: Tensor, targets: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    rows = logits.new_empty(logits.shape[0], dtype=torch.float32)
    return rows, torch.empty_like(rows)


@torch.library.custom_op("underpar::softcapped_ce_backward", mutates_args=())
def softcapped_ce_backward(grad_losses: Tensor, logits: Tensor, targets: Tensor, lse: Tensor, softcap: float) -> Tensor:
    """Gradient of the logits, contiguous (N, V) in their dtype."""
    from underpar.kernels.softcapped_ce.triton import launch_backward

    with torch.cuda.device_of(logits):
        return launch_backward(grad_losses, logits, targets, lse, softcap)


@softcapped_ce_backward.register_fake
def _(grad_losses: Tensor, logits: Tensor, targets: Tensor, lse: Tensor, softcap: float) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    logits, targets, ctx.softcap = inputs
    lse = output[1]
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(logits, targets, lse)


def _backward(ctx: Any, grad_losses: Tensor, _grad_lse: Tensor | None) -> tuple[Tensor, None, None]:
    logits, targets, lse = ctx.saved_tensors
    return softcapped_ce_backward(grad_losses, logits, targets, lse, ctx.softcap), None, None


softcapped_ce.register_autograd(_backward, setup_context=_setup_context)
