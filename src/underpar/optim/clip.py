"""Gradient clipping: scale all gradients so that their common norm is bounded."""

from collections.abc import Sequence

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveFloat, config
from underpar.core.world import World
from underpar.optim.group import Group, by_dtype


class GradientClip(Config):
    """Bounds the norm over all parameters together. All of it stays on the device: the host never waits for a norm."""

    norm: float

    def before_reduction(self, grads: list[Tensor], world: World) -> None:
        """See and change what this process contributes to the sum over processes."""

    def after_reduction(self, groups: Sequence[Group], world: World) -> None:
        """See and change the sums."""


@config
class GlobalClip(GradientClip):
    """Bounds the norm of the step's whole gradient, the same on any number of processes. Source: arXiv:1211.5063."""

    norm: PositiveFloat = 0.3

    @torch.no_grad()
    def after_reduction(self, groups: Sequence[Group], world: World) -> None:
        shares = [grad for group in groups if group.is_sharded for grad in group.reduced()]
        whole = [grad for group in groups if not group.is_sharded for grad in group.reduced()]
        square = world.sum_(_squared_norm(shares, world)) + _squared_norm(whole, world)
        _limit(shares + whole, square.sqrt(), self.norm)


@config
class LocalClip(GradientClip):
    """Each process bounds the norm of the mean gradient of its own rows, then the processes are averaged.

    What the late records do. A step then depends on the number of processes: the fewer rows a mean is over, the larger its
    noise, and the more is cut. Gradients here are parts of one sum, so that on w processes the mean of a process's own rows is
    w times its part; rows that do not divide evenly are treated as if they did. Source: golf PR #1530.
    """

    norm: PositiveFloat = 0.3

    @torch.no_grad()
    def before_reduction(self, grads: list[Tensor], world: World) -> None:
        _limit(grads, world.size * _squared_norm(grads, world).sqrt(), self.norm)


def _squared_norm(tensors: list[Tensor], world: World) -> Tensor:
    """The sum of all squares, float32, on the device."""
    norms = [norm for part in by_dtype(tensors) for norm in torch._foreach_norm(part, 2, dtype=torch.float32)]
    return torch.stack(norms).square().sum() if norms else torch.zeros((), device=world.device)


def _limit(tensors: list[Tensor], norm: Tensor, limit: float) -> None:
    """Scale in place by limit / norm where that is below one."""
    scale = (limit / (norm + 1e-6)).clamp_max(1.0)
    for part in by_dtype(tensors):
        torch._foreach_mul_(part, scale)
