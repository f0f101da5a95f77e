"""The processes of a run: who am I, how many are we, and the few collectives that everything is built from.

One process needs no set-up. Under torchrun (one host or several) `World.join` reads its rank from torchrun's own variables
and opens NCCL on GPUs, gloo on CPUs. Torch is imported on use, so that this module costs nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from underpar.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


class Pending:
    """A collective under way. Collectives run in the order in which they were started, which must be equal on every rank."""

    def __init__(self, result: torch.Tensor, work: Any = None, source: torch.Tensor | None = None) -> None:
        self._result, self._work, self._source = result, work, source  # the source must outlive the transfer

    def wait(self) -> torch.Tensor:
        """The result. On CUDA the current stream waits and the host goes on. May be called again."""
        if self._work is not None:
            self._work.wait()
            self._work = self._source = None
        return self._result


@dataclass(frozen=True)
class World:
    """This process among its peers. Every method is the identity in a world of one."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    control: Any = None
    """A gloo group for small host values, so that control flow never waits for the GPU."""

    @staticmethod
    def join(device: str | None = None) -> World:
        """Join the processes that torchrun started, or be alone. `device` 'cpu' or 'cuda'; None takes CUDA where there is one.

        Raises ConfigError when CUDA is asked for and absent.
        """
        import torch
        import torch.distributed as dist

        has_cuda = torch.cuda.is_available()
        if device == "cuda" and not has_cuda:
            raise ConfigError("device = cuda, but torch sees no CUDA device; use --device cpu")
        kind = device or ("cuda" if has_cuda else "cpu")
        size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if kind == "cuda":
            torch.cuda.set_device(local)
            kind = f"cuda:{local}"
        if size == 1:
            return World(device=kind)
        if not dist.is_initialized():
            bound = torch.device(kind) if kind != "cpu" else None
            dist.init_process_group("nccl" if bound else "gloo", device_id=bound)
        return World(rank, size, kind, dist.new_group(backend="gloo") if kind != "cpu" else dist.group.WORLD)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, total: int) -> range:
        """The contiguous part of `range(total)` that is this rank's; parts differ by at most one."""
        return range(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, in place."""
        return self.start_sum_(tensor).wait()

    def start_sum_(self, tensor: torch.Tensor) -> Pending:
        """Begin a `sum_`; `tensor` is not to be touched before its end."""
        if self.size == 1:
            return Pending(tensor)
        import torch.distributed as dist

        return Pending(tensor, dist.all_reduce(tensor, async_op=True))

    def broadcast_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Rank 0's values everywhere, in place."""
        if self.size > 1:
            import torch.distributed as dist

            dist.broadcast(tensor, 0)
        return tensor

    def reduce_scatter(self, stacked: torch.Tensor) -> torch.Tensor:
        """Sum (size * n, ...) over ranks and keep this rank's n slices. `stacked` is consumed."""
        return self.start_reduce_scatter(stacked).wait()

    def start_reduce_scatter(self, stacked: torch.Tensor) -> Pending:
        """Begin a `reduce_scatter`."""
        if self.size == 1:
            return Pending(stacked)
        import torch.distributed as dist

        part = stacked.shape[0] // self.size
        if self.device == "cpu":  # gloo has no reduce-scatter of tensors
            mine = stacked[self.rank * part : (self.rank + 1) * part]
            return Pending(mine, dist.all_reduce(stacked, async_op=True))
        out = stacked.new_empty(part, *stacked.shape[1:])
        scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)  # renamed in torch 2.13
        return Pending(out, scatter(out, stacked, async_op=True), stacked)

    def all_gather(self, shard: torch.Tensor) -> torch.Tensor:
        """Concatenate the ranks' equal shards along dimension 0."""
        return self.start_all_gather(shard).wait()

    def start_all_gather(self, shard: torch.Tensor) -> Pending:
        """Begin an `all_gather`."""
        if self.size == 1:
            return Pending(shard)
        import torch.distributed as dist

        shard = shard.contiguous()
        out = shard.new_empty(shard.shape[0] * self.size, *shard.shape[1:])
        gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # renamed in torch 2.13
        return Pending(out, gather(out, shard, async_op=True), shard)

    def start_all_to_all(self, rows: torch.Tensor, send: list[int], receive: list[int]) -> Pending:
        """Begin to hand rank i the next `send[i]` of the rows; the result has `receive[i]` rows of rank i, in their order."""
        if self.size == 1:
            return Pending(rows)
        import torch.distributed as dist

        out = rows.new_empty(sum(receive), *rows.shape[1:])
        return Pending(out, dist.all_to_all_single(out, rows, receive, send, async_op=True), rows)

    def exchange(self, numbers: list[int]) -> list[int]:
        """Hand rank i `numbers[i]`, through host memory; what every rank has for this one."""
        if self.size == 1:
            return numbers
        import torch
        import torch.distributed as dist

        mine = torch.empty(self.size, dtype=torch.int64)
        dist.all_to_all_single(mine, torch.tensor(numbers), group=self.control)
        return mine.tolist()

    def agree(self, *values: float) -> tuple[float, ...]:
        """Rank 0's numbers on every rank, through host memory: the clock and other decisions must not differ by rank."""
        if self.size == 1:
            return values
        import torch
        import torch.distributed as dist

        cell = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(cell, 0, group=self.control)
        return tuple(cell.tolist())

    def barrier(self) -> None:
        """Wait for everybody."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier(group=self.control)

    def leave(self) -> None:
        """Close the process group, once every process has come so far: nobody loses a peer that it still talks to."""
        if self.size > 1:
            import torch.distributed as dist

            self.barrier()
            dist.destroy_process_group()
