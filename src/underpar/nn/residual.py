"""How a block and the skips between blocks combine streams."""

import torch
from torch import Tensor

from underpar.core.config import Config, config
from underpar.core.roles import Role
from underpar.nn.module import Module


class ResidualMix(Config):
    """What a block reads: some combination of the stream x and the normalised embedding x0."""

    def build(self, model_dim: int) -> Module:
        raise NotImplementedError


@config
class StreamOnly(ResidualMix):
    """The stream alone."""

    def build(self, model_dim: int) -> Module:
        return _StreamOnly()


class _StreamOnly(Module):
    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        return x


@config
class InputMix(ResidualMix):
    """mix0 * x + mix1 * x0 with learned vectors, (1, 0) at the start. Source: the stock trainer of the 16 MB game."""

    def build(self, model_dim: int) -> Module:
        return _InputMix(model_dim)


class _InputMix(Module):
    mix: Tensor

    def __init__(self, model_dim: int) -> None:
        super().__init__()
        self.declare("mix", torch.stack([torch.ones(model_dim), torch.zeros(model_dim)]), Role.GAIN)

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        mix = self.mix.to(x.dtype)
        return mix[0] * x + mix[1] * x0


class SkipConnections(Module):
    """x + weight[row] * saved, weights one at the start: (rows, model_dim)."""

    weight: Tensor

    def __init__(self, rows: int, model_dim: int) -> None:
        super().__init__()
        self.declare("weight", torch.ones(rows, model_dim), Role.GAIN)

    def forward(self, x: Tensor, saved: Tensor, row: int) -> Tensor:
        return x + self.weight[row].to(x.dtype) * saved
