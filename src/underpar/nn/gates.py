"""Gates on the heads of attention, between the attention itself and its output projection."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.core.config import Config, NonNegativeFloat, PositiveFloat, Range, config
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.nn.module import Module

GateWidth = Annotated[int, Range(at_least=1, at_most=65_536)]


class OutputGate(Config):
    """A factor for every head of every token, computed from what attention read."""

    def build(self, model_dim: int, num_heads: int) -> "HeadGate":
        """Raises ConfigError when the gate wants more inputs than the model has."""
        raise NotImplementedError


@config
class SparseGate(OutputGate):
    """sigmoid(scale * W x[:width]), W zero at the start: one half for every head.

    Source: golf PR #1787 (scale 1), #1855 (scale 0.5).
    """

    width: GateWidth = 12
    scale: PositiveFloat = 1.0

    def build(self, model_dim: int, num_heads: int) -> "HeadGate":
        return HeadGate(num_heads, _within(self.width, model_dim), scale=self.scale)


@config
class DenseGate(OutputGate):
    """sigmoid(W x) over the whole width, W drawn from N(0, init_std^2). Source: golf PR #1736."""

    init_std: NonNegativeFloat = 0.005

    def build(self, model_dim: int, num_heads: int) -> "HeadGate":
        return HeadGate(num_heads, model_dim, init_std=self.init_std)


@config
class DoubledGate(OutputGate):
    """2 * sigmoid(W x[:width]), W zero at the start: one for every head. Source: golf PR #1667 (AttnOutGate)."""

    width: GateWidth = 12

    def build(self, model_dim: int, num_heads: int) -> "HeadGate":
        return HeadGate(num_heads, _within(self.width, model_dim), factor=2.0)


@config
class QueryGate(OutputGate):
    """2 * sigmoid(W q[:width]), reading the first projected queries instead of the stream. Source: golf PR #1667."""

    width: GateWidth = 12

    def build(self, model_dim: int, num_heads: int) -> "HeadGate":
        return HeadGate(num_heads, _within(self.width, model_dim), factor=2.0, reads_queries=True)


def _within(width: int, model_dim: int) -> int:
    if width > model_dim:
        raise ConfigError(f"width = {width} is over model_dim = {model_dim}")
    return width


class HeadGate(Module):
    """Gate logits of all heads; the gate itself is factor * sigmoid(logits)."""

    weight: Tensor

    def __init__(
        self, num_heads: int, width: int, *, init_std: float = 0.0, scale: float = 1.0, factor: float = 1.0,
        reads_queries: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width, self.scale, self.factor, self.reads_queries = width, scale, factor, reads_queries
        self.declare("weight", torch.zeros(num_heads, width).normal_(std=init_std), Role.GATE, "attention_gate")

    def forward(self, x: Tensor, q: Tensor) -> Tensor:
        """x (B, T, model_dim), what attention read; q (B, T, model_dim), raw queries. Returns (B, T, num_heads)."""
        source = (q if self.reads_queries else x)[..., : self.width]
        return self.scale * F.linear(source.contiguous(), self.weight.to(x.dtype))
