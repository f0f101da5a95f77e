"""The kernel as operators that torch.compile keeps whole: what they return, their shapes, their gradient.

Saved for the backward: the inputs, from which it forms the sum again. Weights belong to the last streams; the streams before
them have weight one, because a list of tensors cannot hold an absent one that autograd passes over.
"""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("underpar::residual_norm", mutates_args=())
def residual_norm(
    streams: list[Tensor],
    weights: list[Tensor],
    x0: Tensor | None,
    mix: Tensor | None,
    gain: float,
    eps: float,
    keep_total: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """total (empty unless kept), mixed and normed, all (N, D)."""
    from underpar.kernels.residual_norm.triton import launch_forward

    with torch.cuda.device_of(streams[0]):
        return launch_forward(streams, weights, x0, mix, gain, eps, keep_total)


@residual_norm.register_fake
def _(
    streams: list[Tensor],
    weights: list[Tensor],
    x0: Tensor | None,
    mix: Tensor | None,
    gain: float,
    eps: float,
    keep_total: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    x = streams[0]
    return x.new_empty(x.shape if keep_total else (0,)), x.new_empty(x.shape), x.new_empty(x.shape)


@torch.library.custom_op("underpar::residual_norm_backward", mutates_args=())
def residual_norm_backward(
    grad_total: Tensor | None,
    grad_mixed: Tensor | None,
    grad_normed: Tensor,
    streams: list[Tensor],
    weights: list[Tensor],
    x0: Tensor | None,
    mix: Tensor | None,
    gain: float,
    eps: float,
) -> list[Tensor]:
    """Gradients of the streams, of x0 if there is one, and of weights and mix together, (number, D) fp32."""
    from underpar.kernels.residual_norm.triton import launch_backward

    with torch.cuda.device_of(streams[0]):
        return launch_backward((grad_total, grad_mixed, grad_normed), streams, weights, x0, mix, gain, eps)


@residual_norm_backward.register_fake
def _(
    grad_total: Tensor | None,
    grad_mixed: Tensor | None,
    grad_normed: Tensor,
    streams: list[Tensor],
    weights: list[Tensor],
    x0: Tensor | None,
    mix: Tensor | None,
    gain: float,
    eps: float,
) -> list[Tensor]:
    rows = [*streams, *([] if x0 is None else [x0])]
    parameters = len(weights) + (0 if mix is None else 2)
    sums = streams[0].new_empty((parameters, streams[0].shape[1]), dtype=torch.float32)
    return [*(x.new_empty(x.shape) for x in rows), sums]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    streams, weights, x0, mix, ctx.gain, ctx.eps, ctx.keep_total = inputs
    ctx.num_streams = len(streams)
    ctx.set_materialize_grads(False)  # the gradient of a result nobody used is not read as zeros
    ctx.save_for_backward(*streams, *weights, x0, mix)


def _backward(ctx: Any, grad_total: Tensor | None, grad_mixed: Tensor | None, grad_normed: Tensor | None) -> tuple:
    *tensors, x0, mix = ctx.saved_tensors
    streams, weights = list(tensors[: ctx.num_streams]), list(tensors[ctx.num_streams :])
    if grad_normed is None:
        grad_normed = torch.zeros_like(streams[0])
    if not ctx.keep_total:
        grad_total = None
    *rows, sums = residual_norm_backward(
        grad_total, grad_mixed, grad_normed, streams, weights, x0, mix, ctx.gain, ctx.eps
    )
    grad_x0 = None if x0 is None else rows.pop()
    grad_weights = [sums[i].to(w.dtype) for i, w in enumerate(weights)]
    grad_mix = None if mix is None else sums[len(weights) :].to(mix.dtype)
    return rows, grad_weights, grad_x0, grad_mix, None, None, None


residual_norm.register_autograd(_backward, setup_context=_setup)
