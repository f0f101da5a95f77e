"""A gradient of which few rows are not zero, on its way to the processes that own the rows."""

import torch
from torch import Tensor

from underpar.core.world import World
from underpar.nn.rows import touched


class RowExchange:
    """Sums a gradient (R, D) over the processes, each keeping its `own` rows; only rows that somebody touched travel.

    Numbers and values go from every process to every owner. Sums are float32, whatever the gradient is in, and made in the
    order of the processes. Collective. Source: modded-nanogpt PR #221.
    """

    def __init__(self, grad: Tensor, own: int, world: World) -> None:
        self.own, self.world, self.dim = own, world, grad.shape[1]
        rows, send = touched(grad, own, world.size)
        self.received = world.exchange(send)
        self.rows = world.start_all_to_all(rows, send, self.received)
        self.values = world.start_all_to_all(grad[rows], send, self.received)
        self.total: Tensor | None = None

    def wait(self) -> Tensor:
        """(own * D,) float32 of this process's rows. On CUDA the current stream waits. May be called again."""
        if self.total is None:
            rows, values = self.rows.wait() - self.world.rank * self.own, self.values.wait()
            total = torch.zeros(self.own, self.dim, device=values.device)
            for some, theirs in zip(rows.split(self.received), values.split(self.received), strict=True):
                total.index_add_(0, some, theirs.float())
            self.total = total.view(-1)
        return self.total
