"""The fused MLP as operators that torch.compile keeps whole: what they return and save, their shapes, their gradient.

With a zero negative slope only the activation is saved: it is pre^2 where pre > 0, and its relative rounding error halves
under the square root, so that the root is nearer to the pre-activation than a rounded copy of it would be. A leaky slope
loses the sign, and `pre` is saved as well. The weights' gradients are plain torch.mm, which the compiler sees.
"""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("underpar::mlp_act", mutates_args=())
def mlp_act(x: Tensor, w_up: Tensor, w_down: Tensor, negative_slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """x (M, D), w_up (F, D), w_down (D', F) -> out (M, D'), post (M, F), pre (M, F) or, without a slope, (0,)."""
    from underpar.kernels.mlp_act.triton import launch_up

    with torch.cuda.device_of(x):
        post, pre = launch_up(x, w_up, negative_slope)
    return torch.mm(post, w_down.t()), post, pre


@mlp_act.register_fake
def _(x: Tensor, w_up: Tensor, w_down: Tensor, negative_slope: float) -> tuple[Tensor, Tensor, Tensor]:
    hidden = (x.shape[0], w_up.shape[0])
    pre = x.new_empty(hidden if negative_slope else (0,))
    return x.new_empty((x.shape[0], w_down.shape[0])), x.new_empty(hidden), pre


@torch.library.custom_op("underpar::mlp_act_grad_pre", mutates_args=())
def mlp_act_grad_pre(grad: Tensor, w_down: Tensor, saved: Tensor, negative_slope: float) -> Tensor:
    """(grad w_down) * f'(pre), (M, F). `saved` is post when the slope is zero, pre otherwise."""
    from underpar.kernels.mlp_act.triton import launch_grad_pre

    with torch.cuda.device_of(grad):
        return launch_grad_pre(grad, w_down, saved, negative_slope)


@mlp_act_grad_pre.register_fake
def _(grad: Tensor, w_down: Tensor, saved: Tensor, negative_slope: float) -> Tensor:
    return saved.new_empty(saved.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, w_up, w_down, ctx.negative_slope = inputs
    _, post, pre = output
    ctx.mark_non_differentiable(post, pre)
    ctx.save_for_backward(x, w_up, w_down, post, pre)


def _backward(ctx: Any, grad: Tensor, _post: Tensor | None, _pre: Tensor | None) -> tuple[Tensor | None, ...]:
    x, w_up, w_down, post, pre = ctx.saved_tensors
    slope = ctx.negative_slope
    needs_x, needs_up, needs_down, _ = ctx.needs_input_grad
    grad_x = grad_up = grad_down = None
    if needs_x or needs_up:
        grad_pre = mlp_act_grad_pre(grad, w_down, pre if slope else post, slope)
        grad_x = torch.mm(grad_pre, w_up) if needs_x else None
        grad_up = torch.mm(grad_pre.t(), x) if needs_up else None
    if needs_down:
        grad_down = torch.mm(grad.t(), post)
    return grad_x, grad_up, grad_down, None


mlp_act.register_autograd(_backward, setup_context=_setup)
