"""Causal attention in plain torch: the definition of correct, and what runs where no fast back end does."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_attention_ref(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Causal attention within the segments of one packed row, one segment after another: memory is linear in T.

    q: (1, T, H, D); k, v: (1, T, Hkv, D); cu_seqlens: (S + 1,) int32, padded with T. Returns (1, T, H, D). Traced into a graph,
    where the lengths are not known, it goes through a mask of (T, T).
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    grouped = q.shape[1] != k.shape[1]
    if torch.compiler.is_compiling():
        mask = _mask(cu_seqlens, q.shape[2])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped).transpose(1, 2)
    parts = [
        F.scaled_dot_product_attention(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], is_causal=True, enable_gqa=grouped)
        for a, b in pairwise(cu_seqlens.tolist())
        if a < b
    ]
    return torch.cat(parts, dim=2).transpose(1, 2)


def _mask(cu_seqlens: Tensor, length: int) -> Tensor:
    """(T, T) bool: which tokens each may look at."""
    index = torch.arange(length, device=cu_seqlens.device)
    segment = torch.searchsorted(cu_seqlens, index.to(cu_seqlens.dtype), right=True)
    return (segment[:, None] == segment[None, :]) & (index[:, None] >= index[None, :])
