"""How hidden matrices start. Layers that start at zero are left alone: they make a fresh block add nothing."""

import torch
from torch import nn

from underpar.core.config import Config, config
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
        for module in model.modules():
            if isinstance(module, Linear) and not module.zero_init and not module.weight.is_meta:
                torch.nn.init.orthogonal_(module.weight)
