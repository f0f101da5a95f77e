"""Value embedding: attention's values get something of the token itself, whatever the layers made of it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.core.config import Config, NonNegativeFloat, PositiveInt, config, field
from underpar.core.roles import Role
from underpar.nn.layers import LayerSet, TheseLayers
from underpar.nn.linear import Linear
from underpar.nn.module import Module


@config
class ValueEmbedding(Config):
    """One table (vocab_size, dim) -> projection to the kv width, zero at the start -> scale; added to v in some layers, each
    with a gain of its own that starts at one. Source: golf, March 2026 records (VE128).
    """

    dim: PositiveInt = 128
    layers: LayerSet = field(default_factory=lambda: TheseLayers(layers=(9, 10)))
    init_std: NonNegativeFloat = 0.01
    scale_init: float = 0.1

    def build(self, vocab_size: int, num_layers: int, kv_dim: int) -> "ValueLookup":
        return ValueLookup(self, vocab_size, num_layers, kv_dim)


class ValueLookup(Module):
    """(B, T) tokens -> (B, T, num_kv_heads, head_dim)."""

    table: Tensor
    scale: Tensor
    gains: Tensor

    def __init__(self, config: ValueEmbedding, vocab_size: int, num_layers: int, kv_dim: int) -> None:
        super().__init__()
        self.layers = [layer for layer in range(num_layers) if config.layers.contains(layer, num_layers)]
        self.declare("table", torch.empty(vocab_size, config.dim).normal_(std=config.init_std), Role.EMBEDDING)
        self.project = Linear(config.dim, kv_dim, zero_init=True)
        self.declare("scale", torch.tensor(float(config.scale_init)), Role.GAIN)
        self.declare("gains", torch.ones(len(self.layers)), Role.GAIN)

    def forward(self, tokens: Tensor, head_dim: int, dtype: torch.dtype) -> Tensor:
        looked_up = F.embedding(tokens, self.table).to(dtype)
        return (self.scale.to(dtype) * self.project(looked_up)).unflatten(-1, (-1, head_dim))

    def gain_of(self, layer: int) -> Tensor | None:
        """() the factor of physical layer `layer`, or None where the layer has no value embedding."""
        return self.gains[self.layers.index(layer)] if layer in self.layers else None
