"""GPTQ: codes chosen column by column, each error passed on to the columns that can still make up for it.

Source: arXiv:2210.17323; ordered by the diagonal of H and with clips by standard deviation as in golf PR #1530 and later.
"""

from dataclasses import dataclass

import torch

from underpar.compress.rounding import Nearest, Rounding
from underpar.core.errors import ArtifactError

NEAREST = Nearest()


@dataclass(frozen=True, eq=False)
class Hessian:
    """What calibration saw of a layer: sums over its tokens."""

    gram: torch.Tensor
    """(in, in) float32: the sum of x x^T over inputs x. GPTQ does not mind its scale."""
    tokens: int
    """How many inputs were summed; a recurrent layer's count once a pass."""
    output_gradient: torch.Tensor | None = None
    """(out,) float32: the sum of the squared derivative of the loss, in nats, by each output; where it was recorded, an error
    of one row can be held against that of another, and of another layer."""


def gptq(
    weights: torch.Tensor,
    gram: torch.Tensor,
    scales: torch.Tensor,
    high: int,
    *,
    damping: float = 0.01,
    block: int = 128,
    ordered: bool = True,
) -> torch.Tensor:
    """Codes in [-high, high] that keep tr(dW H dW^T) small for dW = weights - codes * scales.

    Args:
        weights: (..., rows, cols) float. gram: (..., cols, cols) float32, H up to a factor. scales: (..., rows) float32.
        damping: added to the diagonal of H, as a share of its mean. block: columns between updates of all later ones.
        ordered: columns of large diagonal first.
    Returns: int8 of the shape of `weights`, on its device. Inputs that never occur (a zero on the diagonal) get zero codes.
        With H a multiple of the identity it is plain rounding, half to even.
    Raises: ArtifactError when H is not positive definite even with a hundred times the damping, or not finite.
    Cost: cols steps of small operations, however many matrices there are, and rows * cols^2 multiply-adds each.
    """
    shape = weights.shape
    grams = gram.float().reshape(-1, shape[-1], shape[-1])
    order = column_order(grams) if ordered else torch.arange(shape[-1], device=gram.device).expand(len(grams), -1)
    plain = without_dead(weights.float().reshape(-1, *shape[-2:]), grams)
    factor = inverse_factor(grams, order, damping)
    return feed_back(plain, factor, order, scales.float().reshape(-1, shape[-2]), high, block).reshape(shape)


def column_order(grams: torch.Tensor) -> torch.Tensor:
    """(batch, cols): columns of large diagonal first, so that errors there are made up for by all the others."""
    return torch.diagonal(grams, dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)


def without_dead(weights: torch.Tensor, grams: torch.Tensor) -> torch.Tensor:
    """(batch, rows, cols) with zeros in the columns of inputs that never occur."""
    return weights.masked_fill((torch.diagonal(grams, dim1=1, dim2=2) == 0)[:, None, :], 0.0)


def feed_back(
    weights: torch.Tensor,
    factor: torch.Tensor,
    order: torch.Tensor,
    steps: torch.Tensor,
    high: int,
    block: int = 128,
    rounding: Rounding = NEAREST,
) -> torch.Tensor:
    """The codes: columns in their order, each error passed on. weights: (batch, rows, cols), steps: (batch, rows)."""
    count = weights.shape[-1]
    left = weights.gather(2, order[:, None, :].expand_as(weights))
    codes = torch.empty_like(left, dtype=torch.int8)
    for start in range(0, count, block):
        stop = min(start + block, count)
        errors = torch.empty_like(left[:, :, start:stop])
        for j in range(start, stop):
            column = left[:, :, j]
            codes[:, :, j], found = rounding.choose(column / steps, high)
            error = (column - found * steps) / factor[:, j, j, None]
            errors[:, :, j - start] = error
            left[:, :, j:stop] -= error[:, :, None] * factor[:, None, j, j:stop]
        if stop < count:
            left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return torch.empty_like(codes).scatter_(2, order[:, None, :].expand_as(codes), codes)


def inverse_factor(grams: torch.Tensor, order: torch.Tensor, damping: float) -> torch.Tensor:
    """The upper U with H^-1 = U^T U, for damped and reordered H.

    (batch, cols, cols) and the order of columns (batch, cols). 1 / U[j, j]^2 is the variance of input j that the inputs after
    it do not explain: what an error there costs once later columns have made up for what they can.
    """
    damped = grams.clone()
    diagonal = torch.diagonal(damped, dim1=1, dim2=2)
    diagonal[diagonal == 0] = 1.0
    extra = damping * diagonal.mean(1, keepdim=True)
    diagonal += extra
    ordered = damped.gather(1, order[:, :, None].expand_as(damped)).gather(2, order[:, None, :].expand_as(damped))
    # H = N N^T with N upper, from the lower factor of H turned end for end; then U = N^-1. No inverse of H is formed.
    turned = ordered.flip(1, 2)
    lower, failed = torch.linalg.cholesky_ex(turned)
    for more in (0.0, 9.0, 99.0):
        bad = (failed != 0).nonzero().flatten()
        if not len(bad):
            break
        again = turned[bad].double()
        torch.diagonal(again, dim1=1, dim2=2).add_(more * extra[bad].double())
        found, failed_again = torch.linalg.cholesky_ex(again)
        lower[bad], failed[bad] = found.float(), failed_again
    if bool((failed != 0).any()) or not bool(torch.isfinite(lower).all()):
        raise ArtifactError(
            f"{int((failed != 0).sum())} of {len(failed)} Hessians cannot be factored with a damping of {100 * damping:g}; "
            f"calibrate on more tokens, and check them for non-finite values"
        )
    eye = torch.eye(grams.shape[-1], device=grams.device).expand_as(grams)
    return torch.linalg.solve_triangular(lower.flip(1, 2), eye, upper=True)
