"""Root-mean-square normalisation without weights, and its constant scale by depth."""

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.core.config import Config, config
from underpar.core.roles import Role
from underpar.nn.module import Module

EPS = torch.finfo(torch.float32).eps
"""Pinned: the default of torch depends on the dtype that autocast happens to choose (1.2e-7 or 7.8e-3)."""


def rms_norm(x: Tensor, scale: float = 1.0) -> Tensor:
    """scale * x / sqrt(mean(x^2) + 1.19e-7) over the last axis, computed in float32, returned in x's dtype."""
    normalised = F.rms_norm(x.float(), (x.shape[-1],), eps=EPS)
    return (normalised if scale == 1.0 else normalised * scale).to(x.dtype)


class NormScale(Config):
    """A constant on what the branches of a block read."""

    def at(self, layer: int) -> float:
        """The scale of physical layer `layer`, counted from 0."""
        raise NotImplementedError


@config
class UnitScale(NormScale):
    """1 everywhere."""

    def at(self, layer: int) -> float:
        return 1.0


@config
class InverseRootDepth(NormScale):
    """1 / sqrt(layer + 1): deeper layers read less and so write less. Source: golf PR #1530 line ("LN scale")."""

    def at(self, layer: int) -> float:
        return (layer + 1) ** -0.5


class NormGain(Config):
    """What every norm of the stream is multiplied by: after the embedding, before both branches of a block, before the head."""

    def build(self, model_dim: int) -> "Gain":
        return Gain()


@config
class NoGain(NormGain):
    """Nothing."""


@config
class VectorGain(NormGain):
    """A learned factor for each dimension, ones at the start."""

    def build(self, model_dim: int) -> "Gain":
        return _VectorGain(model_dim)


class Gain(Module):
    """(..., model_dim) -> the same shape; this one leaves it alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class _VectorGain(Gain):
    weight: Tensor

    def __init__(self, model_dim: int) -> None:
        super().__init__()
        self.declare("weight", torch.ones(model_dim), Role.GAIN)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.to(x.dtype)
