"""How hidden matrices start. Layers that start at zero are left alone: they make a fresh block add nothing."""

import math

import torch
from torch import nn

from underpar.core.config import Config, PositiveFloat, config
from underpar.nn.linear import Linear


class MatrixInit(Config):
    """Initial values of every `Linear` that does not start at zero."""

    def apply(self, model: nn.Module) -> None:
        """Draw from torch's default generator, in the order of the modules."""
        raise NotImplementedError


@config
class UniformInit(MatrixInit):
    """Uniform in +-1/sqrt(in_features), as the layers draw when they are made."""

    def apply(self, model: nn.Module) -> None:
        pass


@config
class OrthogonalInit(MatrixInit):
    """Orthonormal rows (or columns, where there are more rows). Source: golf PR #1530 line; Saxe et al. 2013."""

    def apply(self, model: nn.Module) -> None:
        for weight in _started(model):
            torch.nn.init.orthogonal_(weight)


@config
class ScaledUniformInit(MatrixInit):
    """Uniform with a standard deviation of gain / sqrt(in_features). Source: modded-nanogpt."""

    gain: PositiveFloat = 0.5

    def apply(self, model: nn.Module) -> None:
        for weight in _started(model):
            bound = math.sqrt(3) * self.gain / math.sqrt(weight.shape[1])
            torch.nn.init.uniform_(weight, -bound, bound)


@config
class ScaledNormalInit(MatrixInit):
    """Normal with a variance of variance / in_features. Source: modded-nanogpt, track 3."""

    variance: PositiveFloat = 0.33

    def apply(self, model: nn.Module) -> None:
        for weight in _started(model):
            torch.nn.init.normal_(weight, std=math.sqrt(self.variance / weight.shape[1]))


def _started(model: nn.Module) -> list[torch.Tensor]:
    """Weights of the linear layers that do not start at zero."""
    return [
        module.weight
        for module in model.modules()
        if isinstance(module, Linear) and not module.zero_init and not module.weight.is_meta
    ]
