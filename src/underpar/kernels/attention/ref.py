"""Causal attention in plain torch: the definition of correct, and what runs where no fast back end does."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_attention_ref(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, window: int | None = None
) -> Tensor:
    """Causal attention within segments and windows, one segment after another: memory is linear in T, quadratic in segments.

    q: (B, T, H, D); k, v: (B, T, Hkv, D); cu_seqlens: (S + 1,) int32, padded with T, equal in all rows; None is one segment.
    window: positions that a query sees before its own; None sees all. Returns (B, T, H, D). Traced into a graph, where the
    lengths are not known, it goes through a mask of (T, T).
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    grouped = q.shape[1] != k.shape[1]
    if cu_seqlens is None or torch.compiler.is_compiling():
        mask = _mask(cu_seqlens, window, q.shape[2], q.device)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped).transpose(1, 2)
    parts = []
    for a, b in pairwise(cu_seqlens.tolist()):
        if a < b:
            bounded = None if window is None or window >= b - a - 1 else _mask(None, window, b - a, q.device)
            part_q, part_k, part_v = q[:, :, a:b], k[:, :, a:b], v[:, :, a:b]
            part = F.scaled_dot_product_attention(
                part_q, part_k, part_v, attn_mask=bounded, is_causal=bounded is None, enable_gqa=grouped
            )
            parts.append(part)
    return torch.cat(parts, dim=2).transpose(1, 2)


def _mask(cu_seqlens: Tensor | None, window: int | None, length: int, device: torch.device) -> Tensor:
    """(T, T) bool: which tokens each may look at."""
    index = torch.arange(length, device=device)
    distance = index[:, None] - index[None, :]
    mask = distance >= 0
    if window is not None:
        mask = mask & (distance <= window)
    if cu_seqlens is not None:
        segment = torch.searchsorted(cu_seqlens, index.to(cu_seqlens.dtype), right=True)
        mask = mask & (segment[:, None] == segment[None, :])
    return mask
