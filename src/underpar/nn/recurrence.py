"""What a recurrent layer's later passes keep of the pass before."""

from typing import Any

import torch
from torch import Tensor

from underpar.core.config import Config, config
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.nn.module import Module


class RecurrenceMix(Config):
    """After the first pass, recurrent layer i puts out beta_i * f(x) + sum_j alpha_ij * y_j.

    y_j is what recurrent layer j put out in the pass before, without gradient. Plain recurrence is beta = 1, alpha = 0.
    """

    def build(self, layers: int) -> Module:
        """layers: how many recur. Raises ConfigError when the constants are for another number."""
        raise NotImplementedError


@config
class LearnedMix(RecurrenceMix):
    """beta and alpha are learned, from 1 and 0. Source: golf PR #2137."""

    def build(self, layers: int) -> Module:
        return _LearnedMix(layers)


@config
class FrozenMix(RecurrenceMix):
    """Constants, read off a run that learned them: layers 3 to 5 of the late stack. Source: golf PR #1779."""

    beta: tuple[float, ...] = (1.5973426, 1.8826205, 1.9906198)
    alpha: tuple[float, ...] = (
        0.2520, -0.0210, -0.0124,
        0.0669, -0.3477, 0.0031,
        0.1387, 0.2412, 0.0272,
    )  # fmt: skip
    """Row i holds what layer i takes of each recurrent layer."""

    def build(self, layers: int) -> Module:
        if len(self.beta) != layers or len(self.alpha) != layers**2:
            raise ConfigError(
                f"beta has {len(self.beta)} and alpha {len(self.alpha)} constants, but {layers} layers recur: "
                f"give {layers} and {layers**2}"
            )
        return _FrozenMix(self.beta, self.alpha)


class _LearnedMix(Module):
    beta: Tensor
    alpha: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.declare("beta", torch.ones(layers), Role.GAIN)
        self.declare("alpha", torch.zeros(layers, layers), Role.GAIN)

    def forward(self, y: Tensor, before: list[Tensor], row: int, pass_number: int) -> Tensor:
        """y (B, T, d), what the layer computed; before: outputs of the recurrent layers in the pass before."""
        if not pass_number:
            return y
        return _mix(y, before, self.beta[row].to(y.dtype), self.alpha[row].to(y.dtype))


class _FrozenMix(Module):
    def __init__(self, beta: tuple[float, ...], alpha: tuple[float, ...]) -> None:
        super().__init__()
        self.beta, self.alpha = beta, alpha

    def forward(self, y: Tensor, before: list[Tensor], row: int, pass_number: int) -> Tensor:
        if not pass_number:
            return y
        size = len(self.beta)
        return _mix(y, before, self.beta[row], self.alpha[row * size : (row + 1) * size])


def _mix(y: Tensor, before: list[Tensor], beta: Any, alpha: Any) -> Tensor:
    out = beta * y
    for index, carried in enumerate(before):
        out = out + alpha[index] * carried.detach()
    return out
