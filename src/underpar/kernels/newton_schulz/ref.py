"""Newton-Schulz orthogonalisation in plain torch: the definition of correct."""

from collections.abc import Sequence

import torch
from torch import Tensor

NORM_FLOOR = 1e-7
"""Added to the norm, so that a matrix of zeros stays one."""


def newton_schulz(batch: Tensor, coefficients: Sequence[tuple[float, float, float]]) -> Tensor:
    """X <- a X + (b A + c A A) X with A = X X^T, one iteration per (a, b, c). (B, r, c) -> (B, r, c), same dtype."""
    x = wide_and_scaled(batch)
    for a, b, c in coefficients:
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return restored(x, batch)


def wide_and_scaled(batch: Tensor) -> Tensor:
    """Contiguous (B, min(r, c), max(r, c)), every matrix at a Frobenius norm of 1, which bounds its singular values."""
    x = batch.mT if batch.shape[1] > batch.shape[2] else batch
    dtype = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=dtype)
    return (x / (norm + NORM_FLOOR)).to(x.dtype).contiguous()


def restored(x: Tensor, batch: Tensor) -> Tensor:
    """`x` in the orientation of `batch`, contiguous."""
    return x.mT.contiguous() if batch.shape[1] > batch.shape[2] else x
