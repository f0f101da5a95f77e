"""Rotary position embedding in the half-split form. Source: arXiv:2104.09864."""

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveFloat, PositiveInt, config
from underpar.core.errors import ConfigError


@config
class Rope(Config):
    """Rotate pairs (i, i + dims/2) of each head by position * base^(-2i/dims)."""

    base: PositiveFloat = 10_000.0
    dims: PositiveInt | None = None
    """Leading dimensions of a head that are rotated; the rest carry no position. None rotates all."""

    def check(self) -> None:
        if self.dims is not None and self.dims % 2:
            raise ConfigError(f"dims = {self.dims} must be even")

    def tables(self, length: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin, (length, dims / 2) float32. Positions run over the row; only their differences matter."""
        dims = self.dims or head_dim
        exponent = torch.arange(0, dims, 2, dtype=torch.float32, device=device) / dims
        angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), self.base**-exponent)
        return angles.cos(), angles.sin()
