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

    def base_for(self, length: int, dims: int) -> float:
        """The base for segments of at most `length` tokens."""
        return self.base

    def tables(self, positions: Tensor, head_dim: int, length: int) -> tuple[Tensor, Tensor]:
        """cos and sin, (T, dims / 2) float32, of positions (T,). Only differences of positions matter.

        length: the longest segment that attention meets.
        """
        dims = self.dims or head_dim
        exponent = torch.arange(0, dims, 2, dtype=torch.float32, device=positions.device) / dims
        angles = torch.outer(positions.float(), self.base_for(length, dims) ** -exponent)
        return angles.cos(), angles.sin()


@config
class StretchedRope(Rope):
    """Beyond the row length of training the base grows by (length / train_length)^(dims / (dims - 2)).

    Positions further apart than any in training then turn no further than those did. Called YaRN in the scripts of golf and
    off in all six of its documented recipes. Source: the NTK-aware interpolation behind arXiv:2309.00071.
    """

    train_length: PositiveInt = 2048

    def base_for(self, length: int, dims: int) -> float:
        if length <= self.train_length or dims <= 2:
            return self.base
        return self.base * (length / self.train_length) ** (dims / (dims - 2))
