"""What every optimiser offers: a configuration per role, and the group that applies it to named parameters."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from underpar.core.config import Config
from underpar.core.world import World
from underpar.optim.schedules import Settings


class OptimiserConfig(Config):
    """How the parameters of one role are updated."""

    lr: float
    weight_decay: float

    def build(self, params: dict[str, Tensor], world: World) -> "Group":
        """The optimiser of these parameters. Raises ConfigError on a parameter that it cannot update."""
        raise NotImplementedError

    def rate_and_decay(self, settings: Settings) -> tuple[float, float]:
        """The learning rate and the weight decay in force; a step first multiplies weights by 1 - rate * decay."""
        return self.lr * settings.lr_scale, self.weight_decay * settings.decay_scale

    @property
    def period(self) -> int:
        """Of how many steps in a row one updates."""
        return 1

    def is_due(self, settings: Settings) -> bool:
        """Whether this step updates. Where it does not, gradients wait, and those of the next step are added to them."""
        return True


class Group(ABC):
    """Named parameters under one optimiser.

    A step is `begin`, then possibly a look at `reduced`, then `step`, then `finish`. Every `.grad` holds this process's part
    of a sum over processes; afterwards parameters are equal on every process.
    """

    is_sharded: ClassVar[bool]
    """Whether `reduced` is this process's share of the gradients, or all of them on every process."""
    turn: ClassVar[int]
    """Groups step in this order: those that compute least first, so that they work while gradients of others travel."""
    config: OptimiserConfig
    params: dict[str, Tensor]

    @abstractmethod
    def begin(self) -> None:
        """Start to sum the gradients over the processes."""

    @abstractmethod
    def reduced(self) -> list[Tensor]:
        """The summed gradients that this process holds, once they are there; changes in place reach the update."""

    @abstractmethod
    def step(self, settings: Settings) -> dict[str, float]:
        """Update the parameters. Returns the settings that were consumed, by name."""

    def finish(self) -> None:  # noqa: B027  (most have nothing left to do)
        """Take in what `step` left on the way between processes."""

    @abstractmethod
    def state_tensors(self) -> dict[str, Tensor]:
        """All state by parameter name, the same whatever the number of processes. Collective."""

    @abstractmethod
    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_tensors` returned, here or in a world of another size."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything that earlier steps left."""


def gradients_of(params: Iterable[Tensor]) -> list[Tensor]:
    """The `.grad` of each parameter. A missing one becomes zeros, so that state and weight decay go on alike everywhere."""
    found = []
    for param in params:
        if param.grad is None:
            param.grad = torch.zeros_like(param)
        found.append(param.grad)
    return found


def by_dtype(tensors: list[Tensor]) -> list[list[Tensor]]:
    """The tensors in lists of one dtype each: what multi-tensor kernels and flat buffers take."""
    found: dict[object, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.dtype, []).append(tensor)
    return list(found.values())
