"""One process of several, timed alone: what each of N processes computes, without the others and without waiting for them."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.core.world import Pending, World


@dataclass(frozen=True)
class Share(World):
    """Rank 0 of `size` processes that are not there.

    It reads its rows of a step, and updates the matrices and shards that it would own. Where processes would exchange
    something, tensors get the sizes that they would have, filled with what is here: values mean nothing, times do.
    What the exchange itself takes is not in them.
    """

    @classmethod
    def of(cls, world: World, size: int) -> Self:
        """Raises ConfigError among real peers, or for a share of fewer than two."""
        if world.size > 1:
            raise ConfigError(f"--share-of times one process alone, and here are {world.size}; leave torchrun out")
        if size < 2:
            raise ConfigError(
                f"--share-of {size}: a share of at least 2 processes; leave it out to time the whole step"
            )
        return cls(0, size, world.device)

    def start_sum_(self, tensor: Tensor) -> Pending:
        return Pending(tensor)

    def broadcast_(self, tensor: Tensor) -> Tensor:
        return tensor

    def start_reduce_scatter(self, stacked: Tensor) -> Pending:
        return Pending(stacked[: stacked.shape[0] // self.size])

    def start_all_gather(self, shard: Tensor) -> Pending:
        return Pending(shard.repeat(self.size, *[1] * (shard.ndim - 1)))

    def start_all_to_all(self, rows: Tensor, send: list[int], receive: list[int]) -> Pending:
        mine = rows[: send[0]]
        return Pending(mine.repeat(self.size, *[1] * (rows.ndim - 1)))

    def exchange(self, numbers: list[int]) -> list[int]:
        return numbers[:1] * self.size

    def agree(self, *values: float) -> tuple[float, ...]:
        return values

    def barrier(self) -> None:
        pass

    def leave(self) -> None:
        pass
