"""Weights, gradients and the published iteration, for all tests of matrix optimisers."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from underpar.optim.group import Group
from underpar.optim.orthogonalise import FIXED_COEFFICIENTS
from underpar.optim.schedules import Settings

SHAPES = [(24, 24), (48, 16), (16, 48), (24, 24), (7, 5)]


def gradients(seed: int) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield [torch.randn(shape, generator=generator) for shape in SHAPES]


def weights() -> list[Tensor]:
    generator = torch.Generator().manual_seed(99)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def named(params: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"w{i}": p for i, p in enumerate(params)}


def step(group: Group, grads: Sequence[Tensor], settings: Settings) -> dict[str, float]:
    """One step of a group on these gradients."""
    for param, grad in zip(group.params.values(), grads, strict=True):
        param.grad = grad.clone()
    group.begin()
    return group.step(settings)


def relative(found: Tensor, wanted: Tensor | np.ndarray) -> float:
    exact = torch.as_tensor(wanted).detach().double()
    return float((found.detach().double() - exact).norm() / exact.norm())


def newton_schulz_float64(
    matrix: np.ndarray,
    coefficients: Sequence[tuple[float, float, float]] = (FIXED_COEFFICIENTS,) * 5,
    safety: float = 1.0,
) -> np.ndarray:
    """The published iteration, one matrix at a time, in float64."""
    x = matrix.astype(np.float64)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    x = x / (safety * np.sqrt((x * x).sum()) + 1e-7)
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x
