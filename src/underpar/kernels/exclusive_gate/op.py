"""The kernel as operators that torch.compile keeps whole: what they return, their shapes, their gradient.

Saved for the backward: the inputs, which attention and the projection keep anyway.
"""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("underpar::exclusive_gate", mutates_args=())
def exclusive_gate(y: Tensor, v: Tensor | None, logits: Tensor | None, factor: float) -> Tensor:
    from underpar.kernels.exclusive_gate.triton import launch_forward

    with torch.cuda.device_of(y):
        return launch_forward(y, v, logits, factor)


@exclusive_gate.register_fake
def _(y: Tensor, v: Tensor | None, logits: Tensor | None, factor: float) -> Tensor:
    return y.new_empty(y.shape)


@torch.library.custom_op("underpar::exclusive_gate_backward", mutates_args=())
def exclusive_gate_backward(
    grad: Tensor, y: Tensor, v: Tensor | None, logits: Tensor | None, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of y, v and the logits, contiguous in their dtypes; of what is absent, empty."""
    from underpar.kernels.exclusive_gate.triton import launch_backward

    with torch.cuda.device_of(y):
        return launch_backward(grad, y, v, logits, factor)


@exclusive_gate_backward.register_fake
def _(grad: Tensor, y: Tensor, v: Tensor | None, logits: Tensor | None, factor: float) -> tuple[Tensor, Tensor, Tensor]:
    grad_v, grad_logits = (y.new_empty(0) if x is None else x.new_empty(x.shape) for x in (v, logits))
    return y.new_empty(y.shape), grad_v, grad_logits


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    y, v, logits, ctx.factor = inputs
    ctx.save_for_backward(y, v, logits)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    y, v, logits = ctx.saved_tensors
    grad_y, grad_v, grad_logits = exclusive_gate_backward(grad, y, v, logits, ctx.factor)
    return grad_y, None if v is None else grad_v, None if logits is None else grad_logits, None


exclusive_gate.register_autograd(_backward, setup_context=_setup)
