"""Orthogonalisation of update matrices: all singular values towards one, directions kept."""

from collections.abc import Sequence

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveInt, config

FIXED_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Orthogonaliser(Config):
    """A function of a batch of matrices."""

    def __call__(self, batch: Tensor) -> Tensor:
        """(B, rows, cols) float32 -> the same shape: bfloat16 on CUDA, float32 elsewhere."""
        raise NotImplementedError


@config
class NewtonSchulz(Orthogonaliser):
    """The quintic Newton-Schulz iteration with one fixed tuple, X <- aX + (bA + cA^2)X with A = XX^T.

    Singular values end within about 0.7 to 1.2, not at 1: convergence is traded for speed. Runs in bfloat16 on CUDA, in
    float32 where bfloat16 products are slow. Source: Muon, K. Jordan et al. 2024.
    """

    steps: PositiveInt = 5

    def __call__(self, batch: Tensor) -> Tensor:
        dtype = torch.bfloat16 if batch.is_cuda else torch.float32
        return newton_schulz(batch.to(dtype), (FIXED_COEFFICIENTS,) * self.steps)


def newton_schulz(batch: Tensor, coefficients: Sequence[tuple[float, float, float]]) -> Tensor:
    """Iterate X <- aX + (bA + cA^2)X with A = XX^T, one (a, b, c) an iteration, from X = G / (||G||_F + 1e-7).

    batch: (B, rows, cols), computed in its dtype, tall matrices as their transposes. Returns the same shape.
    Cost: 4 s^2 l + 2 s^3 operations a matrix and iteration, s and l the shorter and the longer side.
    """
    tall = batch.shape[1] > batch.shape[2]
    x = batch.mT if tall else batch
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    x = (x / (norm + 1e-7)).to(x.dtype).contiguous()
    for a, b, c in coefficients:
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT.contiguous() if tall else x
