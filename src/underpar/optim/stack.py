"""The matrices of one shape: stacked, shared out among the processes, and put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from underpar.core.config import Config, config
from underpar.core.world import Pending, World
from underpar.optim.decay import Rates
from underpar.optim.group import gradients_of

if TYPE_CHECKING:
    from underpar.optim.sharded import MatrixOptimiser


class MasterWeights(Config):
    """Where the weights are that updates are added to."""

    def stack(self, config: MatrixOptimiser, params: dict[str, Tensor], world: World) -> Stack:
        """The matrices of one shape under one optimiser. Raises ConfigError when they are stored in another way."""
        raise NotImplementedError


@config
class AsStored(MasterWeights):
    """The parameters themselves, in their own dtype."""

    def stack(self, config: MatrixOptimiser, params: dict[str, Tensor], world: World) -> Stack:
        return Stack(config, params, world)


class Stack:
    """This process's share of the state, and the gradients on the way. Every process applies all updates."""

    def __init__(self, config: MatrixOptimiser, params: dict[str, Tensor], world: World) -> None:
        self.config, self.world = config, world
        self.names, self.params = list(params), list(params.values())
        self.rows, self.cols = self.params[0].shape
        self.slots = -(-len(params) // world.size)
        self.state = config.new_state(self.slots, self.rows, self.cols, world.device)
        self.gradients: Pending | None = None

    def begin(self) -> None:
        """Start the reduce-scatter of all gradients of this shape, padded with zeros to equal shares."""
        dtype, device = getattr(torch, self.config.buffer_dtype), self.world.device
        stacked = torch.empty(self.slots * self.world.size, self.rows, self.cols, dtype=dtype, device=device)
        torch._foreach_copy_(list(stacked[: len(self.params)].unbind()), gradients_of(self.params))
        stacked[len(self.params) :].zero_()
        self.gradients = self.world.start_reduce_scatter(stacked)

    def reduced(self) -> Tensor:
        assert self.gradients is not None, "begin() comes first"
        return self.gradients.wait()

    def rates(self, lr: float, decay: float) -> Rates:
        return Rates(lr, lr * max(1.0, self.rows / self.cols) ** 0.5, decay)

    def update(self, momentum: float, lr: float, decay: float) -> Pending:
        """Compute this process's share of the step, and start to gather all of it."""
        update = self.config.update(self.reduced(), self.state, momentum)
        self.gradients = None
        return self.world.start_all_gather(update)

    def apply(self, gathered: Tensor, lr: float, decay: float) -> None:
        """Put what was gathered into the parameters."""
        parts = gathered[: len(self.params)].to(self.params[0].dtype).unbind()
        self.config.decay.move_(self.params, list(parts), self.rates(lr, decay))
