"""What the Muon family shares: matrices batched by shape, sharded over processes, with communication behind the arithmetic.

Matrices of one shape are stacked and treated as a batch. With several processes each shape's gradients are reduced and
scattered, every process keeps the state of its own share and computes that share's update, and the updates are gathered: no
process does work that another repeats. Source of the scheme: golf PR #1530.
"""

from typing import Literal

import torch
from torch import Tensor

from underpar.core.config import NonNegativeFloat, PositiveFloat, abstract_config, field
from underpar.core.errors import ConfigError
from underpar.core.world import Pending, World
from underpar.optim.decay import DecayRule, PlainDecay
from underpar.optim.group import Group, OptimiserConfig
from underpar.optim.orthogonalise import NewtonSchulz, Orthogonaliser
from underpar.optim.schedules import Settings
from underpar.optim.stack import AsStored, MasterWeights, Stack


@abstract_config
class MatrixOptimiser(OptimiserConfig):
    """w <- (1 - lr * weight_decay) * w - lr * sqrt(max(1, rows / cols)) * update, for weights of shape (rows, cols).

    A variant is its state and its update. The momentum comes from the schedule. `decay` can replace the formula.
    """

    lr: PositiveFloat = 0.04
    weight_decay: NonNegativeFloat = 0.0
    orthogonalise: Orthogonaliser = field(default_factory=NewtonSchulz)
    buffer_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype in which gradients are summed over processes and momentum is kept. The late records take bfloat16."""
    decay: DecayRule = field(default_factory=PlainDecay)
    master: MasterWeights = field(default_factory=AsStored)

    def rate_and_decay(self, settings: Settings) -> tuple[float, float]:
        lr, decay = OptimiserConfig.rate_and_decay(self, settings)
        return lr, decay * settings.matrix_decay_scale

    def new_state(self, count: int, rows: int, cols: int, device: str) -> dict[str, Tensor]:
        """The state of `count` matrices before the first step, each tensor (count, ...)."""
        dtype = getattr(torch, self.buffer_dtype)
        return {"momentum": torch.zeros(count, rows, cols, dtype=dtype, device=device)}

    def update(self, grads: Tensor, state: dict[str, Tensor], momentum: float) -> Tensor:
        """(count, rows, cols) gradients in `buffer_dtype` -> their updates. Changes `state` in place; a zero gives a zero."""
        raise NotImplementedError

    def build(self, params: dict[str, Tensor], world: World) -> "MatrixGroup":
        return MatrixGroup(self, params, world)


class MatrixGroup(Group):
    """Applies a `MatrixOptimiser` to named 2-D parameters."""

    is_sharded = True
    turn = 2
    config: MatrixOptimiser

    def __init__(self, config: MatrixOptimiser, params: dict[str, Tensor], world: World) -> None:
        self.config, self.params, self.world = config, params, world
        by_shape: dict[torch.Size, dict[str, Tensor]] = {}
        for name, param in params.items():
            if param.ndim != 2:
                raise ConfigError(
                    f"{type(config).__name__} needs 2-D parameters; {name} has shape {tuple(param.shape)}: give its role Adam"
                )
            by_shape.setdefault(param.shape, {})[name] = param
        largest_first = sorted(by_shape.items(), key=lambda item: -item[0].numel() * len(item[1]))
        self.stacks = [config.master.stack(config, members, world) for _, members in largest_first]

    @torch.no_grad()
    def begin(self) -> None:
        for stack in self.stacks:
            stack.begin()

    def reduced(self) -> list[Tensor]:
        return [stack.reduced() for stack in self.stacks]

    @torch.no_grad()
    def step(self, settings: Settings) -> dict[str, float]:
        """While one shape's updates travel, those of the shape before are applied and those of the next are computed."""
        lr, decay = self.config.rate_and_decay(settings)
        before: tuple[Stack, Pending] | None = None
        for stack in self.stacks:
            travelling = stack.update(settings.momentum, lr, decay)
            if before is not None:
                before[0].apply(before[1].wait(), lr, decay)
            before = stack, travelling
        if before is not None:
            before[0].apply(before[1].wait(), lr, decay)
        return {"lr": lr, "momentum": settings.momentum} | ({"weight_decay": decay} if self.config.weight_decay else {})

    def state_tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for stack in self.stacks:
            for key, shard in stack.state.items():
                whole = _gather(self.world, shard)
                found |= {f"{name}.{key}": whole[i] for i, name in enumerate(stack.names)}
        return found

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        for stack in self.stacks:
            first = self.world.rank * stack.slots
            for slot, name in enumerate(stack.names[first : first + stack.slots]):
                for key, shard in stack.state.items():
                    shard[slot].copy_(state[f"{name}.{key}"])

    def reset(self) -> None:
        for stack in self.stacks:
            for shard in stack.state.values():
                shard.zero_()


def _gather(world: World, shard: Tensor) -> Tensor:
    """`world.all_gather` for 16-bit integers too, which the transports of torch do not carry."""
    if shard.dtype != torch.int16:
        return world.all_gather(shard)
    return world.all_gather(shard.view(torch.uint8)).view(torch.int16)
