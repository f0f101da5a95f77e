"""Several processes of one computation as threads of this one, which meet where processes would exchange their sums."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier, BrokenBarrierError, Lock

import numpy as np
import torch
from torch import Tensor

from underpar.core.world import Pending, World


class Meeting:
    """Where the ranks of one computation give something and get what all have given."""

    def __init__(self, size: int) -> None:
        self._barrier, self._lock = Barrier(size), Lock()
        self._given: dict[int, Tensor] = {}

    def gather(self, rank: int, tensor: Tensor) -> list[Tensor]:
        """Every rank's tensor, in the order of the ranks, so that a sum over them does not depend on who came first."""
        with self._lock:
            self._given[rank] = tensor.clone()
        self._barrier.wait()
        found = [self._given[number] for number in sorted(self._given)]
        if self._barrier.wait() == 0:
            self._given.clear()
        self._barrier.wait()
        return found

    def give_up(self) -> None:
        """Let nobody wait for a rank that failed."""
        self._barrier.abort()


@dataclass(frozen=True)
class Rank(World):
    """A World of which the peers are threads: the collectives that scoring uses."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def start_sum_(self, tensor: Tensor) -> Pending:
        tensor.copy_(torch.stack(self.meeting.gather(self.rank, tensor)).sum(dim=0))
        return Pending(tensor)

    def agree(self, *values: float) -> tuple[float, ...]:
        cell = torch.tensor(values, dtype=torch.float64)
        return tuple(self.meeting.gather(self.rank, cell)[0].tolist())


def on_ranks(size: int, device: str, work: Callable[[World], np.ndarray]) -> np.ndarray:
    """`work` by `size` ranks at a time; what rank 0 found. Raises what the first failing rank raises."""
    meeting = Meeting(size)

    def one(world: Rank) -> np.ndarray:
        try:
            return work(world)
        except BaseException:
            meeting.give_up()
            raise

    with ThreadPoolExecutor(size) as pool:
        running = [pool.submit(one, Rank(rank, size, device, meeting=meeting)) for rank in range(size)]
    problems = [problem for each in running if (problem := each.exception()) is not None]
    for problem in problems:
        if not isinstance(problem, BrokenBarrierError):
            raise problem
    return running[0].result()
