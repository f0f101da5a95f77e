"""How far the host may run ahead of the device."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from underpar.core.phase import Phase
from underpar.data.context import Batch

MAX_AHEAD = 2
"""Steps that the host may be ahead of the device: enough to hide launches, few enough for the clock to be honest."""


@dataclass
class InFlight:
    """A step whose work may still be on the device, and the event that is logged once its loss is known."""

    event: dict[str, Any]
    loss: Tensor
    batches: list[Batch]
    phase: Phase
    done: Any = None
    """The device's own event at the end of the step; None where the host does the work."""


@dataclass
class Pace:
    """Steps in flight, oldest first. Waits for the oldest only, never for the device as a whole."""

    on_cuda: bool
    waiting: deque[InFlight] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.waiting)

    def launched(self, step: InFlight) -> Iterator[InFlight]:
        """Take a step that was just launched; gives those that are finished now, after waiting for the ones too far back."""
        if self.on_cuda:
            step.loss = step.loss.to("cpu", non_blocking=True)  # into pinned memory, so the host goes on
            step.done = torch.cuda.Event()
            step.done.record()
        self.waiting.append(step)
        while len(self.waiting) > (MAX_AHEAD if self.on_cuda else 0):
            yield self._oldest()

    def drained(self) -> Iterator[InFlight]:
        """All that are left, then an idle device."""
        while self.waiting:
            yield self._oldest()
        if self.on_cuda:
            torch.cuda.synchronize()

    def _oldest(self) -> InFlight:
        step = self.waiting.popleft()
        if step.done is not None:
            step.done.synchronize()
        return step
