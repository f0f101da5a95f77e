"""Exclusive self-attention and an output gate in plain torch: the definition of correct."""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-12
"""Least length by which a value is divided: a value of zeros removes nothing."""


def exclusive_gate(y: Tensor, v: Tensor | None, logits: Tensor | None, factor: float) -> Tensor:
    """y (B, T, H, D), v (B, T, Hkv, D) or None, logits (B, T, H) or None -> (B, T, H, D) contiguous in the dtype of y.

    Computes in fp32 (fp64 for fp64 inputs) and rounds once.
    """
    out = _widened(y)
    if v is not None:
        direction = F.normalize(_widened(v), dim=-1, eps=EPS).unsqueeze(3)
        groups = out.unflatten(2, (v.shape[2], -1))  # (B, T, Hkv, H / Hkv, D)
        along = (groups * direction).sum(-1, keepdim=True)
        out = (groups - along * direction).flatten(2, 3)
    if logits is not None:
        out = out * (factor * torch.sigmoid(_widened(logits))).unsqueeze(-1)
    return out.to(y.dtype).contiguous()


def _widened(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
