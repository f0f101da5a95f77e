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


class Skips(Config):
    """How a stream takes back what was saved."""

    def build(self, rows: int, model_dim: int) -> Module:
        """A module (stream, saved, row) -> stream with `rows` rows of weights."""
        raise NotImplementedError


@config
class AddedSkips(Skips):
    """x + weight[row] * saved, weights one at the start. Source: the stock trainer of the 16 MB game."""

    def build(self, rows: int, model_dim: int) -> Module:
        return _AddedSkips(rows, model_dim)


@config
class GatedSkips(Skips):
    """s + sigmoid(gate[row]) * (x - s) with s = weight[row] * saved: half of each at the start. Source: golf PR #1530 line."""

    def build(self, rows: int, model_dim: int) -> Module:
        return _GatedSkips(rows, model_dim)


class _AddedSkips(Module):
    weight: Tensor

    def __init__(self, rows: int, model_dim: int) -> None:
        super().__init__()
        self.declare("weight", torch.ones(rows, model_dim), Role.GAIN)

    def forward(self, x: Tensor, saved: Tensor, row: int) -> Tensor:
        return x + self.weight[row].to(x.dtype) * saved


class _GatedSkips(Module):
    weight: Tensor
    gate: Tensor

    def __init__(self, rows: int, model_dim: int) -> None:
        super().__init__()
        self.declare("weight", torch.ones(rows, model_dim), Role.GAIN)
        self.declare("gate", torch.zeros(rows, model_dim), Role.GAIN)

    def forward(self, x: Tensor, saved: Tensor, row: int) -> Tensor:
        scaled = self.weight[row].to(x.dtype) * saved
        return torch.lerp(scaled, x, torch.sigmoid(self.gate[row]).to(x.dtype))


class LaneMix(Module):
    """Two residual lanes that both branches of a block write to.

    lane_l <- keep[layer, l] * lane_l + write[layer, attention, l] * A + write[layer, mlp, l] * M, with keep (layers, 2) at
    1.1 and write (layers, 2, 2) at 1 at the start. Layers on one lane have rows too, which only decay, as in the records.
    Source: golf PR #1530 line ("parallel residuals").
    """

    keep: Tensor
    write: Tensor

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.declare("keep", torch.full((num_layers, 2), 1.1), Role.GAIN)
        self.declare("write", torch.ones(num_layers, 2, 2), Role.GAIN)

    def forward(
        self, lanes: tuple[Tensor, Tensor], branches: tuple[Tensor, Tensor], layer: int
    ) -> tuple[Tensor, Tensor]:
        """branches: what attention and the MLP of physical layer `layer` put out."""
        keep, write = self.keep[layer].to(lanes[0].dtype), self.write[layer].to(lanes[0].dtype)
        attention, mlp = branches
        first, second = (keep[i] * lanes[i] + write[0, i] * attention + write[1, i] * mlp for i in (0, 1))
        return first, second
