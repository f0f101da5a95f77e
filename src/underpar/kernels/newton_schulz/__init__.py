"""Newton-Schulz orthogonalisation of batches of matrices, the heart of Muon."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.dispatch import uses_kernel, why_not_triton
from underpar.kernels.newton_schulz import op, ref

__all__ = ["newton_schulz"]


def newton_schulz(
    batch: Tensor, coefficients: Sequence[tuple[float, float, float]], steps: int | None = None
) -> Tensor:
    """Odd polynomials of matrices, iterated: singular values towards one, singular vectors kept.

    X = G / (||G||_F + 1e-7), transposed when tall; then per (a, b, c): A = X X^T, X <- a X + (b A + c A A) X.

    Args:
        batch: (B, r, c), computed in its own dtype; bf16 for speed on a GPU. Not differentiable there.
        coefficients: (a, b, c) of each iteration; a single tuple serves every step.
        steps: number of iterations, by default len(coefficients); never more than there are tuples, unless there is one.
    Returns:
        (B, r, c) in the dtype of `batch`, a new tensor.
    Raises:
        ConfigError: shape, dtype or coefficients do not fit, or there are fewer tuples than steps.
    Cost: with s = min(r, c), l = max(r, c): 4 s^2 l + 2 s^3 operations a matrix and step in plain torch; the kernel does
        about 3 s^2 l + s^3 of them, on bf16 or fp16.
    Source: Muon, K. Jordan et al. 2024; per-step tuples, Polar Express, Amsel et al. 2025.
    """
    schedule = _schedule(coefficients, steps)
    if batch.ndim != 3 or not batch.is_floating_point():
        raise ConfigError(f"batch is {batch.dtype} {tuple(batch.shape)}; need floating point (B, rows, columns)")
    if uses_kernel("newton_schulz", _why_not(batch)):
        return op.newton_schulz(batch.detach(), [number for triple in schedule for number in triple])
    return ref.newton_schulz(batch, schedule)


def _schedule(
    coefficients: Sequence[tuple[float, float, float]], steps: int | None
) -> list[tuple[float, float, float]]:
    steps = len(coefficients) if steps is None else steps
    triples = list(coefficients) * (steps if len(coefficients) == 1 else 1)
    if not 1 <= steps <= len(triples):
        raise ConfigError(
            f"steps is {steps}, with {len(coefficients)} coefficient tuples; need 1 to that many, or one tuple"
        )
    if any(len(triple) != 3 or not all(map(math.isfinite, triple)) for triple in triples):
        raise ConfigError(f"coefficients are {triples}; each must be three finite numbers (a, b, c)")
    return triples[:steps]


def _why_not(batch: Tensor) -> str | None:
    if (reason := why_not_triton(batch)) is not None:
        return reason
    return None if batch.dtype in (torch.bfloat16, torch.float16) else f"the batch is {batch.dtype}"
