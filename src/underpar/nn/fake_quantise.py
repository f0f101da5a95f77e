"""Quantisation-aware training: matrices meet the grid they will be stored on while they still learn."""

from typing import Annotated

import torch
from torch import Tensor

from underpar.core.config import Config, Range, config


class FakeQuantiser(Config):
    """Replaces a weight by a value of its grid in the forward pass; the gradient passes as if it had not."""

    def __call__(self, weight: Tensor, x: Tensor) -> Tensor:
        """weight (rows, columns) -> the same shape in the dtype of x."""
        raise NotImplementedError


@config
class FakeIntPerRow(FakeQuantiser):
    """One step per row, max|row| / (2^(bits-1) - 1), taken from the weight as cast to the activations' dtype.

    The records clip at the 99.99984th percentile, which for rows of a few thousand weights is the maximum but for a ten
    thousandth of its distance to the second largest. Source: golf PR #122; straight-through estimator, arXiv:1308.3432.
    """

    bits: Annotated[int, Range(at_least=2, at_most=8)] = 6

    def __call__(self, weight: Tensor, x: Tensor) -> Tensor:
        w = weight.to(x.dtype)
        with torch.no_grad():
            step = w.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-8) / (2 ** (self.bits - 1) - 1)
            moved = (torch.round(w.float() / step) * step).to(w.dtype) - w
        return w + moved
