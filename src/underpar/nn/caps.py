"""Bounds on logits, beside the tanh of `TiedHead` and `UntiedHead`."""

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveFloat, config


class LogitCap(Config):
    """A bounded, rising function of a logit; the config itself is called."""

    def __call__(self, logits: Tensor) -> Tensor:
        raise NotImplementedError


@config
class SigmoidCap(LogitCap):
    """scale * sigmoid((z + shift) / divisor): from 0 to `scale`. Source: modded-nanogpt, record 54."""

    scale: PositiveFloat = 23.0
    shift: float = 5.0
    divisor: PositiveFloat = 7.5

    def __call__(self, logits: Tensor) -> Tensor:
        return self.scale * torch.sigmoid((logits + self.shift) / self.divisor)


@config
class RationalCap(LogitCap):
    """bound * z / sqrt(z^2 + bound^2). Source: modded-nanogpt, track 3."""

    bound: PositiveFloat = 15.0

    def __call__(self, logits: Tensor) -> Tensor:
        return self.bound * logits * torch.rsqrt(logits.square() + self.bound**2)
