"""Orthogonalisers against the published iteration in float64, and what they do to singular values."""

import pytest
import torch
from matrices import SHAPES, newton_schulz_float64, relative
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.optim.orthogonalise import (
    FIXED_COEFFICIENTS,
    POLAR_EXPRESS_COEFFICIENTS,
    NewtonSchulz,
    Orthogonaliser,
    PolarExpress,
)

BOTH = pytest.mark.parametrize("orthogonalise", [NewtonSchulz(), PolarExpress()], ids=str)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_equal_to_the_float64_iteration(shape: tuple[int, int], steps: int) -> None:
    batch = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    for found, coefficients in (
        (NewtonSchulz(steps=steps)(batch), (FIXED_COEFFICIENTS,) * steps),
        (PolarExpress(steps=steps)(batch), POLAR_EXPRESS_COEFFICIENTS[:steps]),
    ):
        for matrix, result in zip(batch, found, strict=True):
            wanted = newton_schulz_float64(matrix.numpy(), coefficients)
            assert relative(result, wanted) < 1e-5  # float32 rounding: 1e-7 to 1.6e-6 seen


def spread(shape: tuple[int, int], smallest: float) -> tuple[Tensor, Tensor]:
    """A matrix with singular values from `smallest` to 1, and the nearest orthogonal one."""
    generator = torch.Generator().manual_seed(3)
    left, right = (torch.linalg.qr(torch.randn(n, n, generator=generator))[0] for n in shape)
    rank = min(shape)
    return (left[:, :rank] * torch.linspace(smallest, 1.0, rank)) @ right[:rank], left[:, :rank] @ right[:rank]


@pytest.mark.parametrize("shape", [(64, 64), (128, 32), (32, 128)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(
    ("orthogonalise", "low", "high"), [(NewtonSchulz(), 0.6, 1.3), (PolarExpress(), 0.85, 1.15)], ids=str
)
def test_singular_values_come_near_one(
    orthogonalise: Orthogonaliser, low: float, high: float, shape: tuple[int, int], scale: float
) -> None:
    matrix, polar = spread(shape, 0.05)
    found = orthogonalise(scale * matrix[None])[0]
    values = torch.linalg.svdvals(found)
    assert low < float(values.min())
    assert float(values.max()) < high
    assert float((found * polar).sum() / (found.norm() * polar.norm())) > 0.98  # directions kept


def test_polar_express_lifts_small_singular_values_further() -> None:
    matrix, _ = spread((64, 64), 1e-3)
    fixed, express = (float(torch.linalg.svdvals(o(matrix[None])[0]).min()) for o in (NewtonSchulz(), PolarExpress()))
    assert express > 1.5 * fixed  # 0.21 against 0.10 seen


@pytest.mark.parametrize("factor", [1.01, 1.5])
def test_the_safety_factor_divides_the_input(factor: float) -> None:
    batch = torch.randn(2, 12, 20, generator=torch.Generator().manual_seed(1))
    a, b, c = POLAR_EXPRESS_COEFFICIENTS[0]
    for matrix, found in zip(batch.double(), PolarExpress(steps=1, safety_factor=factor)(batch), strict=True):
        x = matrix / (factor * matrix.norm())
        gram = x @ x.T
        assert relative(found, a * x + (b * gram + c * gram @ gram) @ x) < 1e-5


@BOTH
def test_a_zero_gradient_gives_no_update(orthogonalise: Orthogonaliser) -> None:
    assert not orthogonalise(torch.zeros(2, 8, 8)).any()


@pytest.mark.parametrize("steps", [0, 6])
def test_polar_express_has_five_tuples_and_refuses_to_do_fewer_than_asked(steps: int) -> None:
    with pytest.raises(ConfigError, match=rf"steps = {steps} is out of range: must be >= 1 and <= 5"):
        PolarExpress(steps=steps).frozen()
