"""SGD on the weights themselves, over text that has been charged: one step a chunk of rows, shared by the processes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from underpar.core.errors import ScoreError
from underpar.core.world import World
from underpar.data.context import Batch, packed_context, row_context
from underpar.model.gpt import GPT

ROWS_AT_ONCE = 8
"""Rows of one forward and backward pass; a chunk's gradient is the sum over its passes."""


@contextmanager
def restored(model: GPT) -> Iterator[None]:
    """Whatever the block does to the weights, and to what needs gradients, is put back at its end."""
    before = [(p, p.detach().clone(), p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for param, value, needs_grad in before:
                param.copy_(value)
                param.requires_grad_(needs_grad)
                param.grad = None


class BaseSGD:
    """Steps of SGD with momentum; the momentum lives as long as this object.

    Args:
        context: tokens of a row. packs: whether attention stays within the documents of a row.
        clip: norm above which the gradient of a chunk, all processes together, is scaled down to it.
    """

    def __init__(
        self, model: GPT, *, momentum: float, clip: float, context: int, packs: bool, bos_id: int, world: World
    ) -> None:
        self._model, self._clip, self._context, self._packs = model, clip, context, packs
        self._bos_id, self._world = bos_id, world
        self._params = list(model.parameters())
        self._optimiser = torch.optim.SGD(self._params, lr=0.0, momentum=momentum)

    def step(self, text: np.ndarray, lr: float) -> None:
        """One step on the mean loss of text[1:]. text: (n * context + 1,) token ids, n rows side by side. Collective."""
        targets = len(text) - 1
        for param in self._params:
            param.requires_grad_(True)
            param.grad = torch.zeros_like(param)
        with torch.enable_grad():
            for batch in self._batches(text, targets // self._context):
                (self._model(*batch).sum() / targets).backward()
        self._reduce()
        norm = torch.nn.utils.clip_grad_norm_(self._params, self._clip)
        if not math.isfinite(float(norm)):
            raise ScoreError(f"the gradient of charged text has norm {float(norm)}; lower the learning rate")
        self._optimiser.param_groups[0]["lr"] = lr
        self._optimiser.step()
        for param in self._params:
            param.requires_grad_(False)
            param.grad = None

    def _batches(self, text: np.ndarray, rows: int) -> Iterator[Batch]:
        mine = self._world.share(rows)
        for first in range(mine.start, mine.stop, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, mine.stop - first)
            begin = first * self._context
            both = torch.from_numpy(text[begin : begin + count * self._context + 1].astype(np.int64))
            inputs, targets = both[:-1], both[1:]
            shape = (1, -1) if self._packs else (count, self._context)
            inputs, targets = inputs.reshape(shape), targets.reshape(shape)
            if self._packs:
                context = packed_context(inputs, self._bos_id, self._context, span_tokens=self._context)
            else:
                context = row_context(inputs, self._bos_id)
            device = self._world.device
            yield Batch(inputs.to(device), targets.to(device), context.to(device))

    def _reduce(self) -> None:
        if self._world.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for param in self._params:
            assert param.grad is not None
            by_dtype.setdefault(param.dtype, []).append(param.grad)
        for gradients in by_dtype.values():
            flat = self._world.sum_(torch.cat([g.flatten() for g in gradients]))
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))


def cosine(index: int, count: int) -> float:
    """Half a cosine from 1 at the first of `count` chunks to 0 at the last."""
    return 0.5 * (1.0 + math.cos(math.pi * index / max(1, count - 1)))


def trained_chunks(text: np.ndarray, chunk_tokens: int) -> Iterator[tuple[np.ndarray, float]]:
    """Every chunk but the last, with the token after it, and its share of the learning rate."""
    count = -(-(len(text) - 1) // chunk_tokens)
    for index in range(count - 1):
        yield text[index * chunk_tokens : (index + 1) * chunk_tokens + 1], cosine(index, count)
