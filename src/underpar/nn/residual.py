"""How a block and the skips between blocks combine streams."""

import torch
from torch import Tensor

from underpar.core.config import Config, config
from underpar.core.roles import Role
from underpar.nn.module import Module
from underpar.nn.stream import Stream


class ResidualMix(Config):
    """What a block reads: some combination of the stream and the normalised embedding x0.

    Builds a module (stream, x0, gain, keep_total) -> (total, x, normed): the stream's sum if kept, what the block goes on
    with, and gain * x / rms(x).
    """

    def build(self, model_dim: int) -> Module:
        raise NotImplementedError


@config
class StreamOnly(ResidualMix):
    """The stream alone."""

    def build(self, model_dim: int) -> Module:
        return _StreamOnly()


class _StreamOnly(Module):
    def forward(self, stream: Stream, x0: Tensor, gain: float, keep_total: bool) -> tuple[Tensor, Tensor, Tensor]:
        total, normed = stream.normed(gain)
        return total, total, normed


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

    def forward(
        self, stream: Stream, x0: Tensor, gain: float, keep_total: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        return stream.mixed(x0, self.mix, gain, keep_total=keep_total)


class Skips(Config):
    """How a stream takes back what was saved."""

    def build(self, rows: int, model_dim: int) -> Module:
        """A module (stream, saved stream, row) -> stream with `rows` rows of weights."""
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

    def forward(self, x: Stream, saved: Stream, row: int) -> Stream:
        return x + saved.times(self.weight[row])


class _GatedSkips(Module):
    weight: Tensor
    gate: Tensor

    def __init__(self, rows: int, model_dim: int) -> None:
        super().__init__()
        self.declare("weight", torch.ones(rows, model_dim), Role.GAIN)
        self.declare("gate", torch.zeros(rows, model_dim), Role.GAIN)

    def forward(self, x: Stream, saved: Stream, row: int) -> Stream:
        gate = torch.sigmoid(self.gate[row])
        return x.times(gate) + saved.times((1.0 - gate) * self.weight[row])


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
        self, lanes: tuple[Tensor, Tensor], branches: tuple[Tensor, Tensor], scales: tuple[Tensor, Tensor], layer: int
    ) -> tuple[Stream, Stream]:
        """branches: what attention and the MLP of physical layer `layer` put out; scales: (d,) of each."""
        keep, write = self.keep[layer], self.write[layer]
        first, second = (
            Stream(((lanes[i], keep[i]),))
            .plus(branches[0], write[0, i] * scales[0])
            .plus(branches[1], write[1, i] * scales[1])
            for i in (0, 1)
        )
        return first, second
