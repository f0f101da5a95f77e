"""Causal attention in plain torch: the definition of correct, and what runs where no fast back end does."""

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_attention_ref(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Causal attention within the segments of one packed row, through a (T, T) mask: quadratic memory, for small T.

    q: (1, T, H, D); k, v: (1, T, Hkv, D); cu_seqlens: (S + 1,) int32, padded with T. Returns (1, T, H, D).
    """
    length = q.shape[1]
    index = torch.arange(length, device=q.device)
    segment = torch.searchsorted(cu_seqlens, index.to(cu_seqlens.dtype), right=True)
    mask = (segment[:, None] == segment[None, :]) & (index[:, None] >= index[None, :])
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
    return out.transpose(1, 2)
