"""Muon: momentum, Nesterov, orthogonalisation; batched by shape and sharded over processes.

Matrices of one shape are stacked and treated as a batch. With several processes each shape's gradients are reduced and
scattered, every process keeps momentum for its own share and orthogonalises that, and the updates are gathered: no process
does work that another repeats. Source: K. Jordan et al. 2024; the sharding follows golf PR #1530.
"""

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveFloat, config, field
from underpar.core.errors import ConfigError
from underpar.core.world import World
from underpar.optim.orthogonalise import NewtonSchulz, Orthogonaliser


class OptimiserConfig(Config):
    """How the parameters of one role are updated."""

    lr: float


@config
class Muon(OptimiserConfig):
    """u = orthogonalise(g + m * buf) with buf = m * buf + g; w -= lr * sqrt(max(1, rows / cols)) * u.

    The momentum m comes from the schedule.
    """

    lr: PositiveFloat = 0.04
    orthogonalise: Orthogonaliser = field(default_factory=NewtonSchulz)


class MuonGroup:
    """Applies `Muon` to named 2-D parameters."""

    def __init__(self, config: Muon, params: dict[str, Tensor], world: World) -> None:
        self.config, self.world = config, world
        by_shape: dict[tuple[int, ...], list[str]] = {}
        for name, param in params.items():
            if param.ndim != 2:
                raise ConfigError(
                    f"Muon needs 2-D parameters; {name} has shape {tuple(param.shape)}: give its role Adam"
                )
            by_shape.setdefault(tuple(param.shape), []).append(name)
        self.params = params
        self.shapes = sorted(by_shape.items(), key=lambda item: -item[0][0] * item[0][1] * len(item[1]))
        self.momentum = {shape: self._empty_shard(shape, len(names)) for shape, names in self.shapes}

    def _empty_shard(self, shape: tuple[int, ...], count: int) -> Tensor:
        per_rank = -(-count // self.world.size)
        return torch.zeros(per_rank, *shape, device=self.world.device)

    @torch.no_grad()
    def step(self, lr: float, momentum: float) -> None:
        """Consume `.grad`, which holds this process's part of the sum; parameters end equal on every process."""
        for shape, names in self.shapes:
            buffer = self.momentum[shape]
            stacked = torch.stack([self.params[name].grad for name in names])  # type: ignore[misc]
            missing = buffer.shape[0] * self.world.size - len(names)
            if missing:
                stacked = torch.cat([stacked, stacked.new_zeros(missing, *shape)])
            grads = self.world.reduce_scatter(stacked.float())
            buffer.mul_(momentum).add_(grads)
            update = self.config.orthogonalise(grads.add(buffer, alpha=momentum))
            updates = self.world.all_gather(update)[: len(names)]
            scale = lr * max(1.0, shape[0] / shape[1]) ** 0.5
            targets = [self.params[name] for name in names]
            torch._foreach_add_(targets, list(updates.to(targets[0].dtype).unbind()), alpha=-scale)

    def state_tensors(self) -> dict[str, Tensor]:
        """The whole momentum by parameter name, gathered: a checkpoint does not depend on the number of processes."""
        found: dict[str, Tensor] = {}
        for shape, names in self.shapes:
            full = self.world.all_gather(self.momentum[shape])
            found |= {f"{name}.momentum": full[i] for i, name in enumerate(names)}
        return found

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """Take back this process's share of what `state_tensors` returned."""
        for shape, names in self.shapes:
            buffer = self.momentum[shape]
            for slot in range(buffer.shape[0]):
                index = self.world.rank * buffer.shape[0] + slot
                if index < len(names):
                    buffer[slot].copy_(state[f"{names[index]}.momentum"])

    def reset(self) -> None:
        """Forget all momentum."""
        for buffer in self.momentum.values():
            buffer.zero_()
