"""Value embedding: attention's values get something of the token itself, whatever the layers made of it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.core.config import Config, NonNegativeFloat, PositiveInt, config, field
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.nn.frame import AddValues
from underpar.nn.gates import GateWidth
from underpar.nn.layers import LayerSet, TheseLayers
from underpar.nn.linear import Linear
from underpar.nn.module import Module


class ValueTables(Config):
    """Something of the token that is added to the values of some layers."""

    layers: LayerSet

    def build(self, vocab_size: int, num_layers: int, model_dim: int, kv_heads: int, head_dim: int) -> "ValueSource":
        raise NotImplementedError


class ValueSource(Module):
    """Looks up once a forward pass, and adds to the values of each of its layers."""

    def __init__(self, chosen: LayerSet, num_layers: int) -> None:
        super().__init__()
        self.layers = [layer for layer in range(num_layers) if chosen.contains(layer, num_layers)]

    def look_up(self, tokens: Tensor, dtype: torch.dtype) -> Any:
        """tokens (B, T) -> what `adder` is given in every layer."""
        raise NotImplementedError

    def adder(self, looked_up: Any, layer: int) -> AddValues | None:
        """What adds to the values of physical layer `layer`; None where the layer has no value embedding."""
        if layer not in self.layers:
            return None
        row = self.layers.index(layer)
        return lambda v, x: self.add(v, x, looked_up, row)

    def add(self, v: Tensor, x: Tensor, looked_up: Any, row: int) -> Tensor:
        """v (B, T, num_kv_heads, head_dim) and what attention read -> v with the value embedding of the `row`-th layer."""
        raise NotImplementedError


@config
class ValueEmbedding(ValueTables):
    """One table (vocab_size, dim) -> projection to the kv width, zero at the start -> scale; added to v in some layers, each
    with a gain of its own that starts at one. Source: golf, March 2026 records (VE128).
    """

    dim: PositiveInt = 128
    layers: LayerSet = field(default_factory=lambda: TheseLayers(layers=(9, 10)))
    init_std: NonNegativeFloat = 0.01
    scale_init: float = 0.1

    def build(self, vocab_size: int, num_layers: int, model_dim: int, kv_heads: int, head_dim: int) -> "ValueLookup":
        return ValueLookup(self, vocab_size, num_layers, kv_heads, head_dim)


class ValueLookup(ValueSource):
    """See `ValueEmbedding`."""

    table: Tensor
    scale: Tensor
    gains: Tensor

    def __init__(self, config: ValueEmbedding, vocab_size: int, num_layers: int, kv_heads: int, head_dim: int) -> None:
        super().__init__(config.layers, num_layers)
        self.head_dim = head_dim
        table = torch.empty(vocab_size, config.dim).normal_(std=config.init_std)
        self.declare("table", table, Role.EMBEDDING, "value_embedding")
        self.project = Linear(config.dim, kv_heads * head_dim, zero_init=True)
        self.declare("scale", torch.tensor(float(config.scale_init)), Role.GAIN)
        self.declare("gains", torch.ones(len(self.layers)), Role.GAIN)

    def look_up(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        looked_up = F.embedding(tokens, self.table).to(dtype)
        return (self.scale.to(dtype) * self.project(looked_up)).unflatten(-1, (-1, self.head_dim))

    def add(self, v: Tensor, x: Tensor, looked_up: Tensor, row: int) -> Tensor:
        return v + self.gains[row].to(v.dtype) * looked_up


@config
class GatedValueTables(ValueTables):
    """A table (vocab_size, model_dim) for each of some layers, times a gate 2 sigmoid(W x[:width]) per head that starts at one.

    Source: modded-nanogpt, records 14, 55 and 63.
    """

    layers: LayerSet = field(default_factory=lambda: TheseLayers(layers=(0, 1, 8, 9, 10)))
    init_std: NonNegativeFloat = 0.0
    width: GateWidth = 12

    def build(self, vocab_size: int, num_layers: int, model_dim: int, kv_heads: int, head_dim: int) -> "_GatedTables":
        if self.width > model_dim:
            raise ConfigError(f"width = {self.width} is over model_dim = {model_dim}")
        return _GatedTables(self, vocab_size, num_layers, kv_heads, head_dim)


@config
class SelfGatedValueTables(GatedValueTables):
    """A `GatedValueTables` whose gate reads half of its dimensions from the stream and half from the table.

    Source: modded-nanogpt, record 70.
    """

    def check(self) -> None:
        if self.width % 2:
            raise ConfigError(f"width = {self.width} must be even: half is read from the stream, half from the table")

    def build(self, vocab_size: int, num_layers: int, model_dim: int, kv_heads: int, head_dim: int) -> "_GatedTables":
        made = GatedValueTables.build(self, vocab_size, num_layers, model_dim, kv_heads, head_dim)
        made.reads_values = True
        return made


class _GatedTables(ValueSource):
    tables: Tensor
    gates: Tensor
    reads_values = False

    def __init__(
        self, config: GatedValueTables, vocab_size: int, num_layers: int, kv_heads: int, head_dim: int
    ) -> None:
        super().__init__(config.layers, num_layers)
        self.vocab_size, self.head_dim, self.width = vocab_size, head_dim, config.width
        rows = len(self.layers) * vocab_size
        tables = torch.empty(rows, kv_heads * head_dim).normal_(std=config.init_std)
        self.declare("tables", tables, Role.EMBEDDING, "value_embedding")
        self.declare("gates", torch.zeros(len(self.layers) * kv_heads, config.width), Role.GATE, "value_gate")

    def look_up(self, tokens: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """(B, T, model_dim) of every layer. From one look-up: each has a gradient as large as all tables."""
        first = torch.arange(len(self.layers), device=tokens.device) * self.vocab_size
        return F.embedding(tokens + first[:, None, None], self.tables).to(dtype).unbind()

    def add(self, v: Tensor, x: Tensor, looked_up: tuple[Tensor, ...], row: int) -> Tensor:
        values, heads = looked_up[row], v.shape[2]
        weight = self.gates[row * heads : (row + 1) * heads].to(x.dtype)
        source = x[..., : self.width]
        if self.reads_values:
            source = torch.cat((x[..., : self.width // 2], values[..., : self.width // 2]), dim=-1)
        gate = 2.0 * torch.sigmoid(F.linear(source.contiguous(), weight))
        return v + gate.unsqueeze(-1) * values.unflatten(-1, (-1, self.head_dim))
