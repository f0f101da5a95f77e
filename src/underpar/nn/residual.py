"""How a block and the skips between blocks combine streams."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.core.config import Config, config
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.nn.gates import GateWidth
from underpar.nn.module import Module
from underpar.nn.stream import Stream


class ResidualMix(Config):
    """What a block reads: some combination of the stream and the normalised embedding x0.

    Builds a module (stream, x0, bigram, gain, keep_total) -> (total, x, normed): the stream's sum if kept, what the block goes
    on with, and gain * x / rms(x). bigram: (B, T, model_dim) of an embedding that is mixed in, or None.
    """

    takes_bigram: ClassVar[bool] = False
    """Whether it mixes in the bigram embedding of the model."""

    def build(self, model_dim: int) -> Module:
        raise NotImplementedError


@config
class StreamOnly(ResidualMix):
    """The stream alone."""

    def build(self, model_dim: int) -> Module:
        return _StreamOnly()


class _StreamOnly(Module):
    def forward(
        self, stream: Stream, x0: Tensor, bigram: Tensor | None, gain: float, keep_total: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
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
        self, stream: Stream, x0: Tensor, bigram: Tensor | None, gain: float, keep_total: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        return stream.mixed(x0, self.mix, gain, keep_total=keep_total)


@config
class InjectedMix(ResidualMix):
    """keep * x + from_input * x0 + from_bigram * b with learned scalars; b is the model's bigram embedding.

    Source: modded-nanogpt, records 9, 52 and 62.
    """

    takes_bigram: ClassVar[bool] = True

    keep: float = 1.1
    from_input: float = 0.0
    from_bigram: float = 0.1

    def build(self, model_dim: int) -> Module:
        return _InjectedMix(self)


class _InjectedMix(Module):
    keep: Tensor
    from_input: Tensor
    from_bigram: Tensor

    def __init__(self, config: InjectedMix) -> None:
        super().__init__()
        self.declare("keep", torch.tensor(config.keep), Role.GAIN)
        self.declare("from_input", torch.tensor(config.from_input), Role.GAIN, "input_mix")
        self.declare("from_bigram", torch.tensor(config.from_bigram), Role.GAIN)

    def forward(
        self, stream: Stream, x0: Tensor, bigram: Tensor | None, gain: float, keep_total: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        assert bigram is not None
        if keep_total or len(stream.terms) > 2:  # the kernel below adds up four terms at most
            stream = Stream.of(stream.total())
        mixed = stream.times(self.keep).plus(x0, self.from_input).plus(bigram, self.from_bigram)
        x, normed = mixed.normed(gain)
        return stream.total() if keep_total else None, x, normed


class Skips(Config):
    """How a stream takes back what was saved."""

    def build(self, rows: int, model_dim: int) -> Module:
        """A module (stream, saved stream, row, x0) -> stream with `rows` rows of weights."""
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

    def forward(self, x: Stream, saved: Stream, row: int, x0: Tensor) -> Stream:
        return x + saved.times(self.weight[row])


class _GatedSkips(Module):
    weight: Tensor
    gate: Tensor

    def __init__(self, rows: int, model_dim: int) -> None:
        super().__init__()
        self.declare("weight", torch.ones(rows, model_dim), Role.GAIN)
        self.declare("gate", torch.zeros(rows, model_dim), Role.GAIN)

    def forward(self, x: Stream, saved: Stream, row: int, x0: Tensor) -> Stream:
        gate = torch.sigmoid(self.gate[row])
        return x.times(gate) + saved.times((1.0 - gate) * self.weight[row])


@config
class InputGatedSkips(Skips):
    """x + sigmoid(strength) * 2 sigmoid(w . x0[:width]) * saved: a factor for every token, 0.18 at the start.

    Source: modded-nanogpt, records 32 and 55.
    """

    width: GateWidth = 12
    strength: float = -1.5

    def build(self, rows: int, model_dim: int) -> Module:
        if self.width > model_dim:
            raise ConfigError(f"width = {self.width} is over model_dim = {model_dim}")
        return _InputGatedSkips(self, rows)


class _InputGatedSkips(Module):
    weight: Tensor
    strength: Tensor

    def __init__(self, config: InputGatedSkips, rows: int) -> None:
        super().__init__()
        self.width = config.width
        self.declare("weight", torch.zeros(rows, config.width), Role.GATE, "skip_gate")
        self.declare("strength", torch.full((rows,), config.strength), Role.GAIN)

    def forward(self, x: Stream, saved: Stream, row: int, x0: Tensor) -> Stream:
        weight = self.weight[row : row + 1].to(x0.dtype)
        gate = 2.0 * torch.sigmoid(F.linear(x0[..., : self.width].contiguous(), weight))
        return x.plus(torch.sigmoid(self.strength[row]).to(x0.dtype) * gate * saved.total(), None)


class BackoutGain(Module):
    """The head reads x less a share of what a middle layer put out, at first one half. Source: modded-nanogpt, record 40."""

    gain: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.declare("gain", torch.tensor(0.5), Role.GAIN)

    def forward(self, x: Stream, saved: Stream) -> Stream:
        return x + saved.times(-self.gain)


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
