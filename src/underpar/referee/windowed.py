"""Our own artifacts behind the interface that the probes see: a loss function, scored through a window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from underpar.core.world import World
from underpar.data.context import row_context
from underpar.data.validation import ValStream
from underpar.evaluate.score import LossFunction, charge
from underpar.evaluate.windows import Window
from underpar.referee.ranks import on_ranks


@dataclass(frozen=True)
class WindowedPredictor:
    """A loss function scored through a window, by the one score function that training and evaluation use."""

    losses_of: LossFunction
    window: Window
    vocab_size: int
    bos_id: int
    device: str = "cpu"
    batch_tokens: int = 2048
    progress: Callable[[float], None] | None = None

    warms_up: ClassVar[bool] = True
    takes_world: ClassVar[bool] = True

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        return self._charges(tokens, World(device=self.device))

    def charges_after(self, before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Another text is scored first, by the same model in memory."""
        self.charges(before)
        return self.charges(tokens)

    def charges_on(self, processes: int, tokens: np.ndarray) -> np.ndarray:
        """The work shared by ranks."""
        return on_ranks(processes, self.device, lambda world: self._charges(tokens, world))

    def work(self, tokens: np.ndarray) -> str:
        """What there is to share."""
        starts = np.flatnonzero(tokens == self.bos_id).astype(np.int64)
        return f"{sum(1 for _ in self.window.spans(len(tokens) - 1, starts)):,} windows"

    def _charges(self, tokens: np.ndarray, world: World) -> np.ndarray:
        starts = np.flatnonzero(tokens == self.bos_id).astype(np.int64)
        stream = ValStream(tokens, np.ones(len(tokens), dtype=np.int32), starts)
        # The last batch is padded to full size; a short stream must not pay for a long one's.
        spans = sum(1 for _ in self.window.spans(len(tokens) - 1, starts))
        return charge(
            self.losses_of,
            stream,
            self.window,
            bos_id=self.bos_id,
            world=world,
            batch_tokens=min(self.batch_tokens, spans * self.window.context),
            progress=self.progress,
        )

    @torch.no_grad()
    def sweep(self, prefix: np.ndarray) -> np.ndarray:
        """Every token charged at every position of one row: prefix uint16 (T,) -> float64 (vocab_size, T) nats.

        Entry (v, t) is the charge of token v after prefix[: t + 1]. Cost: vocab_size * T positions of forward passes.
        """
        length = len(prefix)
        rows = max(1, min(self.vocab_size, self.batch_tokens // length))
        inputs = torch.from_numpy(prefix.astype(np.int64)).to(self.device).expand(rows, length).contiguous()
        context = row_context(inputs, self.bos_id)
        out = np.empty((self.vocab_size, length), dtype=np.float64)
        for first in range(0, self.vocab_size, rows):
            wanted = torch.arange(first, first + rows, device=self.device).clamp(max=self.vocab_size - 1)
            losses = self.losses_of(inputs, wanted[:, None].expand(rows, length).contiguous(), context)
            count = min(rows, self.vocab_size - first)
            out[first : first + count] = losses[:count].double().cpu().numpy()
        return out
