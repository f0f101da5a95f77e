"""Scales on what attention and MLP add to the stream."""

import torch
from torch import Tensor

from underpar.core.config import Config, config


class BranchScale(Config):
    """A learned factor on the output of a branch."""

    def initial(self, model_dim: int) -> Tensor | None:
        """What it starts as; None where there is none."""
        raise NotImplementedError


@config
class VectorScale(BranchScale):
    """One for each dimension, ones at the start. Source: the stock trainer of the 16 MB game."""

    def initial(self, model_dim: int) -> Tensor | None:
        return torch.ones(model_dim)


@config
class NoScale(BranchScale):
    """None: branches are added as they are."""

    def initial(self, model_dim: int) -> Tensor | None:
        return None
