"""Root-mean-square normalisation without weights."""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = torch.finfo(torch.float32).eps
"""Pinned: the default of torch depends on the dtype that autocast happens to choose (1.2e-7 or 7.8e-3)."""


def rms_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1.19e-7) over the last axis, computed in float32, returned in x's dtype."""
    return F.rms_norm(x.float(), (x.shape[-1],), eps=EPS).to(x.dtype)
