"""Orthogonalisation of update matrices: all singular values towards one, directions kept."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveInt, Range, config

FIXED_COEFFICIENTS = (3.4445, -4.7750, 2.0315)

CONVERGING_COEFFICIENTS = (2.0, -1.5, 0.5)

POLAR_EXPRESS_COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""One tuple an iteration. Source: golf PR #1344."""


class Orthogonaliser(Config):
    """A function of a batch of matrices."""

    def __call__(self, batch: Tensor) -> Tensor:
        """(B, rows, cols) -> the same shape: bfloat16 on CUDA, float32 elsewhere."""
        raise NotImplementedError


@config
class NewtonSchulz(Orthogonaliser):
    """The quintic Newton-Schulz iteration with one fixed tuple, X <- aX + (bA + cA^2)X with A = XX^T.

    Singular values end within about 0.7 to 1.2, not at 1: convergence is traded for speed. Runs in bfloat16 on CUDA, in
    float32 where bfloat16 products are slow. Source: Muon, K. Jordan et al. 2024.
    """

    steps: PositiveInt = 5

    def __call__(self, batch: Tensor) -> Tensor:
        return newton_schulz(batch.to(_working_dtype(batch)), (FIXED_COEFFICIENTS,) * self.steps)


@config
class ConvergedNewtonSchulz(Orthogonaliser):
    """The same iteration with (2, -1.5, 0.5), which converges to singular values of 1. Source: modded-nanogpt, track 3."""

    steps: PositiveInt = 12

    def __call__(self, batch: Tensor) -> Tensor:
        return newton_schulz(batch.to(_working_dtype(batch)), (CONVERGING_COEFFICIENTS,) * self.steps)


@config
class PolarExpress(Orthogonaliser):
    """The same iteration with a tuple of its own for each step, chosen for where the step before can have left the singular
    values. After five they are within 0.85 to 1.15 where they were at least 0.002 of the Frobenius norm.

    Source: arXiv:2505.16932, with the tuples of golf PR #1344.
    """

    steps: Annotated[int, Range(at_least=1, at_most=len(POLAR_EXPRESS_COEFFICIENTS))] = 5
    """The first so many tuples; there are five."""
    safety_factor: Annotated[float, Range(at_least=1.0)] = 1.0
    """Multiplies the norm that the input is divided by, against rounding above 1. Other ports take 1.01 or 1.02."""

    def __call__(self, batch: Tensor) -> Tensor:
        coefficients = POLAR_EXPRESS_COEFFICIENTS[: self.steps]
        return newton_schulz(batch.to(_working_dtype(batch)), coefficients, self.safety_factor)


def _working_dtype(batch: Tensor) -> torch.dtype:
    return torch.bfloat16 if batch.is_cuda else torch.float32


def newton_schulz(
    batch: Tensor, coefficients: Sequence[tuple[float, float, float]], safety_factor: float = 1.0
) -> Tensor:
    """Iterate X <- aX + (bA + cA^2)X with A = XX^T, one (a, b, c) an iteration, from X = G / (safety_factor ||G||_F + 1e-7).

    batch: (B, rows, cols), computed in its dtype, tall matrices as their transposes. Returns the same shape.
    Cost: 4 s^2 l + 2 s^3 operations a matrix and iteration, s and l the shorter and the longer side.
    """
    tall = batch.shape[1] > batch.shape[2]
    x = batch.mT if tall else batch
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    x = (x / (norm * safety_factor + 1e-7)).to(x.dtype).contiguous()
    for a, b, c in coefficients:
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT.contiguous() if tall else x
