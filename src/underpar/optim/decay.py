"""How an update and weight decay meet a weight."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from underpar.core.config import Config, config

Formula = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(weight, update, lr, rate, decay) -> new weight. The last three are 0-D, so that no value becomes part of a graph."""


class Rates(NamedTuple):
    """The numbers of one step."""

    lr: float
    """The learning rate of the role."""
    rate: float
    """What multiplies the update: `lr` times the factor of the matrix's shape."""
    decay: float
    """Weight decay per unit of rate."""

    def tensors(self) -> tuple[Tensor, ...]:
        """As 0-D float32 tensors on the CPU."""
        return tuple(torch.tensor(value) for value in self)


class DecayRule(Config):
    """A formula for the new weight."""

    formula: Formula

    def move_(self, weights: list[Tensor], updates: list[Tensor], rates: Rates) -> None:
        """Put the new weights in the place of the old."""
        numbers = rates.tensors()
        for weight, update in zip(weights, updates, strict=True):
            weight.copy_(self.formula(weight, update, *numbers))


def plain(weight: Tensor, update: Tensor, lr: Tensor, rate: Tensor, decay: Tensor) -> Tensor:
    return weight * (1.0 - lr * decay) - rate * update


def cautious(weight: Tensor, update: Tensor, lr: Tensor, rate: Tensor, decay: Tensor) -> Tensor:
    agreeing = torch.where(update * weight >= 0, weight, torch.zeros_like(weight))
    return weight - rate * (update + decay * agreeing)


@config
class PlainDecay(DecayRule):
    """w <- (1 - lr * decay) w - rate * u, every weight alike. Source: arXiv:1711.05101."""

    @property
    def formula(self) -> Formula:  # type: ignore[override]
        return plain

    def move_(self, weights: list[Tensor], updates: list[Tensor], rates: Rates) -> None:
        if rates.decay:
            torch._foreach_mul_(weights, 1.0 - rates.lr * rates.decay)
        torch._foreach_add_(weights, updates, alpha=-rates.rate)


@config
class CautiousDecay(DecayRule):
    """w <- w - rate * (u + decay * [u w >= 0] w): only weights that the update shrinks anyway, or leaves, decay.

    Source: arXiv:2510.12402 in the form of the speedrun, record 43.
    """

    @property
    def formula(self) -> Formula:  # type: ignore[override]
        return cautious
