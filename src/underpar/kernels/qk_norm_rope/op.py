"""The kernels as operators that torch.compile keeps whole: what they return, their shapes, their gradients.

Saved for the backward: the inputs. The norm is recomputed there, which costs no memory traffic.
"""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("underpar::qk_norm_rope", mutates_args=())
def qk_norm_rope(q: Tensor, k: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    from underpar.kernels.qk_norm_rope.triton import launch_forward

    out_q, out_k = (
        torch.empty(q.shape, dtype=q.dtype, device=q.device),
        torch.empty(k.shape, dtype=k.dtype, device=k.device),
    )
    with torch.cuda.device_of(q):
        launch_forward((q, k), (out_q, out_k), gain, cos, sin, eps)
    return out_q, out_k


@qk_norm_rope.register_fake
def _(q: Tensor, k: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape)


@torch.library.custom_op("underpar::qk_norm_rope_backward", mutates_args=())
def qk_norm_rope_backward(
    grad_q: Tensor, grad_k: Tensor, q: Tensor, k: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q and k, contiguous in their dtypes, and of gain (H,) fp32."""
    from underpar.kernels.qk_norm_rope.triton import launch_backward

    out_q, out_k = (
        torch.empty(q.shape, dtype=q.dtype, device=q.device),
        torch.empty(k.shape, dtype=k.dtype, device=k.device),
    )
    with torch.cuda.device_of(q):
        grad_gain = launch_backward((grad_q, grad_k), (q, k), (out_q, out_k), gain, cos, sin, eps)
    return out_q, out_k, grad_gain


@qk_norm_rope_backward.register_fake
def _(
    grad_q: Tensor, grad_k: Tensor, q: Tensor, k: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), gain.new_empty(gain.shape, dtype=torch.float32)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> tuple[Tensor | None, ...]:
    q, k, gain, cos, sin = ctx.saved_tensors
    out_q, out_k, grad_gain = qk_norm_rope_backward(grad_q, grad_k, q, k, gain, cos, sin, ctx.eps)
    return out_q, out_k, grad_gain.to(gain.dtype), None, None, None


qk_norm_rope.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("underpar::qkv_norm_rope", mutates_args=())
def qkv_norm_rope(
    qkv: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, num_kv_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    from underpar.kernels.qk_norm_rope.triton import launch_forward

    views = _split(qkv, gain.shape[0], num_kv_heads)
    out = tuple(torch.empty(view.shape, dtype=view.dtype, device=view.device) for view in views)
    with torch.cuda.device_of(qkv):
        launch_forward(views, out, gain, cos, sin, eps)
    return out[0], out[1], out[2]


@qkv_norm_rope.register_fake
def _(
    qkv: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, num_kv_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (view.new_empty(view.shape) for view in _split(qkv, gain.shape[0], num_kv_heads))
    return q, k, v


@torch.library.custom_op("underpar::qkv_norm_rope_backward", mutates_args=())
def qkv_norm_rope_backward(
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    qkv: Tensor,
    gain: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_kv_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Gradient of qkv, contiguous in its dtype and written in one piece, and of gain (H,) fp32."""
    from underpar.kernels.qk_norm_rope.triton import launch_backward

    grad_qkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    views, grad_views = (_split(x, gain.shape[0], num_kv_heads) for x in (qkv, grad_qkv))
    with torch.cuda.device_of(qkv):
        return grad_qkv, launch_backward((grad_q, grad_k, grad_v), views, grad_views, gain, cos, sin, eps)


@qkv_norm_rope_backward.register_fake
def _(
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    qkv: Tensor,
    gain: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_kv_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    return qkv.new_empty(qkv.shape), gain.new_empty(gain.shape, dtype=torch.float32)


def _setup_packed(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.num_kv_heads, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _backward_packed(ctx: Any, grad_q: Tensor, grad_k: Tensor, grad_v: Tensor) -> tuple[Tensor | None, ...]:
    qkv, gain, cos, sin = ctx.saved_tensors
    grad_qkv, grad_gain = qkv_norm_rope_backward(grad_q, grad_k, grad_v, qkv, gain, cos, sin, ctx.num_kv_heads, ctx.eps)
    return grad_qkv, grad_gain.to(gain.dtype), None, None, None, None


qkv_norm_rope.register_autograd(_backward_packed, setup_context=_setup_packed)


def _split(qkv: Tensor, num_heads: int, num_kv_heads: int) -> tuple[Tensor, ...]:
    heads = qkv.unflatten(-1, (num_heads + 2 * num_kv_heads, -1))
    return heads.split([num_heads, num_kv_heads, num_kv_heads], dim=2)
