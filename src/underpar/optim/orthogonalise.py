"""Orthogonalisation of update matrices: all singular values towards one, directions kept."""

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveInt, config
from underpar.kernels.newton_schulz import newton_schulz

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
