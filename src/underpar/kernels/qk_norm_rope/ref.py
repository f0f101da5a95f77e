"""QK norm, rotary positions and query gain in plain torch: the definition of correct."""

import torch
from torch import Tensor


def qk_norm_rope(q: Tensor, k: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """q (B, T, H, D), k (B, T, Hkv, D), gain (H,), cos and sin (T, R/2) or (T, A, R/2), R <= D -> q', k' contiguous in their
    dtypes.

    Computes in fp32 (fp64 for fp64 inputs) and rounds once.
    """
    rotated_q = _rotated(_normed(q, eps), cos, sin) * _widened(gain)[:, None]
    rotated_k = _rotated(_normed(k, eps), cos, sin)
    return rotated_q.to(q.dtype).contiguous(), rotated_k.to(k.dtype).contiguous()


def qkv_norm_rope(
    qkv: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, *, num_kv_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """qkv (B, T, (H + 2 Hkv) D) -> q', k' as qk_norm_rope makes them, and v (B, T, Hkv, D), all contiguous."""
    q, k, v = split_heads(qkv, gain.shape[0], num_kv_heads)
    return *qk_norm_rope(q, k, gain, cos, sin, eps=eps), v.contiguous()


def split_heads(qkv: Tensor, num_heads: int, num_kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views q (B, T, H, D), k and v (B, T, Hkv, D) of one projection's output (B, T, (H + 2 Hkv) D)."""
    heads = qkv.unflatten(-1, (num_heads + 2 * num_kv_heads, -1))
    q, k, v = heads.split([num_heads, num_kv_heads, num_kv_heads], dim=2)
    return q, k, v


def _normed(x: Tensor, eps: float) -> Tensor:
    x = _widened(x)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    cos, sin = (_of_heads(angles.to(x.dtype), x.shape[2]) for angles in (cos, sin))
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin, rest), dim=-1)


def _of_heads(angles: Tensor, heads: int) -> Tensor:
    """(T, R/2), one angle for all heads, or (T, A, R/2), one for every A-th head -> (T, 1 or heads, R/2)."""
    return angles[:, None] if angles.ndim == 2 else angles.repeat(1, heads // angles.shape[1], 1)


def _widened(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
