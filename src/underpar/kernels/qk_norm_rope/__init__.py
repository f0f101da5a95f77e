"""QK norm, rotary positions and query gain between projection and attention: one kernel forward, one backward."""

import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.dispatch import uses_kernel, why_not_triton
from underpar.kernels.qk_norm_rope import op, ref

__all__ = ["qk_norm_rope", "qkv_norm_rope"]

_KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_KERNEL_HEAD_DIMS = (16, 32, 64, 128, 256)
_MAX_KERNEL_TILE = 16_384
"""Query elements of one token above which a program's registers no longer hold it."""


def qk_norm_rope(q: Tensor, k: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """Normalise every head of q and k, rotate it by its position, scale the heads of q: ready for attention.

    x / sqrt(mean(x^2) + eps) over D; then of the first R elements of a head, in halves (x1, x2),
    (x1 cos + x2 sin, x2 cos - x1 sin), the rest unrotated; then q times its head's gain.

    Args:
        q: (B, T, H, D). k: (B, T, Hkv, D), same dtype. Both may be views of one projection's output: no copies are made
            as long as the elements of a head are adjacent. bf16, fp16 or fp32; arithmetic in fp32.
        gain: (H,), fp32 as a rule. cos, sin: (T, R / 2), R <= D even, or (T, A, R / 2): head h then takes row h % A, and A
            divides H and Hkv. Constants, no gradient.
        eps: > 0; 1.19e-7 is fp32's machine epsilon, the default of torch's rms_norm for fp32.
    Returns:
        q', k', contiguous, dtypes kept.
    Raises:
        ConfigError: shapes, dtypes or eps do not fit.
    Cost: forward one reading and one writing of q and k, backward two readings and one writing; saves the inputs.
    Source: QK norm (Henry et al. 2020, Dehghani et al. 2023), RoPE (Su et al. 2021) in the half-split form of GPT-NeoX.
    """
    _check(q, k, gain, cos, sin, eps)
    if uses_kernel("qk_norm_rope", _why_not(q)):
        return op.qk_norm_rope(q, k, gain, cos, sin, eps)
    return ref.qk_norm_rope(q, k, gain, cos, sin, eps=eps)


def qkv_norm_rope(
    qkv: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, *, num_kv_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """qk_norm_rope on one projection's output, whose gradient then comes in one piece as well.

    Args:
        qkv: (B, T, (H + 2 Hkv) D): all heads of q, then of k, then of v. H is the length of `gain`.
        gain, cos, sin, eps: as in qk_norm_rope. num_kv_heads: Hkv.
    Returns:
        q' (B, T, H, D), k' and v (B, T, Hkv, D), contiguous; v is a copy.
    Raises:
        ConfigError: shapes, dtypes or eps do not fit.
    Cost: against qk_norm_rope one more reading and writing of v forward; it spares the backward the concatenation of the
        gradients of q, k and v, a reading and a writing of all of qkv.
    """
    heads = gain.shape[0] + 2 * num_kv_heads
    if qkv.ndim != 3 or num_kv_heads < 1 or qkv.shape[-1] % heads:
        raise ConfigError(
            f"qkv {tuple(qkv.shape)} does not hold {gain.shape[0]} + 2 x {num_kv_heads} heads; "
            f"need (B, T, W) with W a multiple of {heads}"
        )
    q, k, _ = ref.split_heads(qkv, gain.shape[0], num_kv_heads)
    _check(q, k, gain, cos, sin, eps)
    if uses_kernel("qkv_norm_rope", _why_not(q)):
        return op.qkv_norm_rope(qkv, gain, cos, sin, num_kv_heads, eps)
    return ref.qkv_norm_rope(qkv, gain, cos, sin, num_kv_heads=num_kv_heads, eps=eps)


def _why_not(q: Tensor) -> str | None:
    heads, head_dim = q.shape[2:]
    if (reason := why_not_triton(q)) is not None:
        return reason
    if q.dtype not in _KERNEL_DTYPES:
        return f"q is {q.dtype}"
    if head_dim not in _KERNEL_HEAD_DIMS:
        return f"head_dim {head_dim} is not one of {_KERNEL_HEAD_DIMS}"
    if heads * head_dim > _MAX_KERNEL_TILE:
        return f"{heads} heads of {head_dim} exceed {_MAX_KERNEL_TILE} elements a token"
    return None


def _check(q: Tensor, k: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float) -> None:
    if q.ndim != 4 or k.ndim != 4 or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise ConfigError(f"q {tuple(q.shape)} and k {tuple(k.shape)} do not fit; need (B, T, H, D) and (B, T, Hkv, D)")
    if q.dtype != k.dtype:
        raise ConfigError(f"q is {q.dtype}, k is {k.dtype}; cast one of them")
    if gain.shape != q.shape[2:3]:
        raise ConfigError(f"gain {tuple(gain.shape)} does not fit q {tuple(q.shape)}; need one number for each head")
    fits = (
        cos.shape == sin.shape and cos.ndim in (2, 3) and cos.shape[0] == q.shape[1] and 2 * cos.shape[-1] <= q.shape[3]
    )
    if not fits or (cos.ndim == 3 and (q.shape[2] % cos.shape[1] or k.shape[2] % cos.shape[1])):
        raise ConfigError(
            f"cos {tuple(cos.shape)} and sin {tuple(sin.shape)} do not fit q {tuple(q.shape)} and k {tuple(k.shape)}; "
            "need (T, R / 2) or (T, A, R / 2) with R <= D, and A a divisor of both numbers of heads"
        )
    if not eps > 0:
        raise ConfigError(f"eps is {eps}; it must be > 0, or a head of zeros gives NaN")
