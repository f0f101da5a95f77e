"""The feed-forward part of a block, and its activations."""

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from underpar.core.config import Config, Fraction, Range, config, field
from underpar.core.errors import ConfigError
from underpar.kernels.mlp_act import mlp_act
from underpar.nn.frame import NO_VISIT, Operand, Visit, cast
from underpar.nn.linear import Linear
from underpar.nn.module import Module


class Activation(Config):
    """An elementwise function; the config itself is called."""

    squared_slope: ClassVar[float | None] = None
    """The negative slope of a squared (leaky) ReLU, for which a fused kernel exists; None for any other function."""

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@config
class ReluSquared(Activation):
    """max(x, 0)^2. Source: arXiv:2109.08668."""

    squared_slope: ClassVar[float | None] = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        return torch.relu(x).square()


@config
class LeakyReluSquared(Activation):
    """leaky_relu(x)^2: keeps a gradient for negative pre-activations. Source: the late line of the 16 MB game."""

    negative_slope: Fraction = 0.5

    @property
    def squared_slope(self) -> float:  # type: ignore[override]
        return self.negative_slope

    def __call__(self, x: Tensor) -> Tensor:
        return torch.nn.functional.leaky_relu(x, self.negative_slope).square()


@config
class MLP(Config):
    """out = f(x W_up^T) W_down^T with a hidden width of `ratio` times the model's."""

    ratio: Annotated[float, Range(above=0, at_most=1_000)] = 2.0
    activation: Activation = field(default_factory=ReluSquared)
    bias: bool = False
    """Whether both layers add a learned vector, zero at the start."""

    def hidden_dim(self, model_dim: int) -> int:
        """Raises ConfigError when nothing is left of it."""
        hidden = round(self.ratio * model_dim)
        if hidden < 1:
            raise ConfigError(f"ratio = {self.ratio:g} of model_dim = {model_dim} leaves no hidden unit")
        return hidden

    def build(self, model_dim: int) -> "FeedForward":
        return FeedForward(self, model_dim)


class FeedForward(Module):
    """(..., model_dim) -> (..., model_dim)."""

    def __init__(self, config: MLP, model_dim: int) -> None:
        super().__init__()
        self.activation = config.activation
        hidden = config.hidden_dim(model_dim)
        self.up = Linear(model_dim, hidden, label="mlp_up", bias=config.bias)
        self.down = Linear(hidden, model_dim, zero_init=True, label="mlp_down", bias=config.bias)

    def forward(self, x: Tensor, operand: Operand = cast, visit: Visit = NO_VISIT) -> Tensor:
        slope = self.activation.squared_slope
        if slope is not None and not visit.needs_hidden and self.up.bias is None:
            return mlp_act(x, operand(self.up.weight, x), operand(self.down.weight, x), slope)
        hidden = self.activation(visit("up", x, self.up(x, operand)))
        return visit("down", hidden, self.down(hidden, operand))
