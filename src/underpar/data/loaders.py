"""Token shards -> the batches of each optimiser step.

The stream is the shards of the training split one after another, wrapping for ever. A step takes a fixed number of spans of
T + 1 consecutive tokens (inputs are the first T, targets the last T), as the published eight-process trainers do together.
Which tokens a step holds, and in which order, therefore depends on the step alone and never on the number of processes:
each process takes its contiguous share of the step's rows. One integer, the position in the stream, is the whole state: what
a step is cut as (`StepShape`) comes with the request for it, and may be another each time.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from underpar.core.config import Config, PositiveInt, abstract_config, config
from underpar.core.errors import ConfigError, DataError
from underpar.core.phase import StepShape
from underpar.core.world import World
from underpar.data.context import Batch, Context, packed_context, row_context
from underpar.data.shards import open_shard, shard_files


class TokenStream:
    """The concatenated training shards, memory-mapped, read by absolute position modulo their total length."""

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.shards = [open_shard(path) for path in shard_files(folder, split)]
        if not self.shards:
            raise DataError(
                f"{folder} has no {split} shards; make them with 'underpar data prepare' or 'underpar data fineweb'"
            )
        self.ends = np.cumsum([len(shard) for shard in self.shards])

    @property
    def total_tokens(self) -> int:
        return int(self.ends[-1])

    def read(self, position: int, count: int) -> np.ndarray:
        """`count` tokens from `position`, uint16, crossing shard ends and wrapping."""
        out = np.empty(count, dtype=np.uint16)
        filled = 0
        position %= self.total_tokens
        while filled < count:
            index = int(np.searchsorted(self.ends, position, side="right"))
            offset = position - int(self.ends[index]) + len(self.shards[index])
            part = self.shards[index][offset : offset + count - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            position = (position + len(part)) % self.total_tokens
        return out


@abstract_config
class Loader(Config):
    """How a step's tokens are cut from the stream."""

    batch_tokens: PositiveInt = 524_288
    """Training tokens of one optimiser step, over all processes."""
    seq_len: PositiveInt = 1024
    """Longest stretch that attention sees."""
    spans: PositiveInt = 8
    """Stretches of consecutive tokens that a step is made of; the published trainers have 8 whatever the hardware."""

    @property
    def span_tokens(self) -> int:
        return self.batch_tokens // self.spans

    @property
    def is_packed(self) -> bool:
        """Whether attention restarts at documents within a row."""
        return False

    @property
    def rows_per_step(self) -> int:
        """Rows that a step can be divided into among processes and micro-batches."""
        raise NotImplementedError

    def shaped(self, shape: StepShape | None) -> Loader:
        """This loader with the tokens and the row length of `shape`; None leaves it as it is. Raises ConfigError as `check`."""
        if shape is None:
            return self
        twin = copy.deepcopy(self)
        twin.batch_tokens, twin.seq_len = shape
        return twin.frozen()

    def read(self, stream: TokenStream, position: int, bos_id: int) -> tuple[np.ndarray, int]:
        """The tokens of the step that begins at `position`, (spans, span_tokens + 1) uint16, and where the next one begins."""
        count = self.spans * (self.span_tokens + 1)
        return stream.read(position, count).reshape(self.spans, -1), position + count

    def cut(self, spans: np.ndarray, rows: range, bos_id: int, micro_batch_tokens: int) -> list[Batch]:
        """Rows `rows` of a step in the fewest nearly equal micro-batches. spans: (spans, span_tokens + 1) uint16."""
        raise NotImplementedError


@config
class SequentialRows(Loader):
    """Dense rows of `seq_len` tokens at arbitrary offsets; attention spans the row, across documents.

    Source: the stock trainer of the 16 MB game.
    """

    def check(self) -> None:
        if self.batch_tokens % (self.spans * self.seq_len):
            raise ConfigError(
                f"batch_tokens = {self.batch_tokens} must be a multiple of spans * seq_len = {self.spans * self.seq_len}"
            )

    @property
    def rows_per_step(self) -> int:
        return self.batch_tokens // self.seq_len

    def cut(self, spans: np.ndarray, rows: range, bos_id: int, micro_batch_tokens: int) -> list[Batch]:
        inputs = spans[:, :-1].reshape(-1, self.seq_len)
        targets = spans[:, 1:].reshape(-1, self.seq_len)
        batches = []
        for part in _parts(rows, self.seq_len, micro_batch_tokens):
            tokens = torch.from_numpy(inputs[part.start : part.stop].astype(np.int64))
            wanted = torch.from_numpy(targets[part.start : part.stop].astype(np.int64))
            batches.append(Batch(tokens, wanted, row_context(tokens, bos_id)))
        return batches


@config
class DocumentPacking(Loader):
    """Spans are packed into one row in which attention restarts at every span, every document and every `seq_len` tokens.

    Unlike the published loader the tail of a shard is carried over into the next, not dropped. Source: golf PR #1530.
    """

    batch_tokens: PositiveInt = 786_432
    seq_len: PositiveInt = 2048

    def check(self) -> None:
        if self.batch_tokens % self.spans:
            raise ConfigError(f"batch_tokens = {self.batch_tokens} must be a multiple of spans = {self.spans}")

    @property
    def is_packed(self) -> bool:
        return True

    @property
    def rows_per_step(self) -> int:
        return self.spans

    def cut(self, spans: np.ndarray, rows: range, bos_id: int, micro_batch_tokens: int) -> list[Batch]:
        parts = _parts(rows, self.span_tokens, micro_batch_tokens)
        return [self._pack(spans[part.start : part.stop], bos_id) for part in parts]

    def _pack(self, spans: np.ndarray, bos_id: int) -> Batch:
        inputs = torch.from_numpy(spans[:, :-1].reshape(1, -1).astype(np.int64))
        targets = torch.from_numpy(spans[:, 1:].reshape(1, -1).astype(np.int64))
        context = packed_context(inputs, bos_id, self.seq_len, span_tokens=self.span_tokens)
        return Batch(inputs, targets, context)


class StepLoader:
    """Hands out optimiser steps: for each the list of micro-batches of this process, on its device.

    A background thread reads ahead, so that a step never waits for a disk. `position` is where the next step to be handed
    out begins; setting it resumes.
    """

    def __init__(
        self,
        folder: Path,
        loader: Loader,
        bos_id: int,
        world: World,
        *,
        micro_batch_tokens: int,
        position: int = 0,
        read_ahead: int = 2,
    ) -> None:
        if world.size > loader.rows_per_step:
            raise ConfigError(
                f"{world.size} processes, but a step has only {loader.rows_per_step} rows; use fewer processes"
            )
        self.stream = TokenStream(folder)
        self.config, self.bos_id, self.world = loader, bos_id, world
        self.micro_batch_tokens = micro_batch_tokens
        self.position = position
        self._read_ahead = read_ahead
        self._shaped: dict[StepShape | None, Loader] = {None: loader}
        self._reader: _Reader | None = None

    @property
    def own_shape(self) -> StepShape:
        """What steps are cut as when nobody asks for another shape."""
        return StepShape(self.config.batch_tokens, self.config.seq_len)

    def batch_tokens(self, shape: StepShape | None) -> int:
        """Training tokens of one step, over all processes."""
        return self.config.batch_tokens if shape is None else shape.batch_tokens

    def shaped(self, shape: StepShape | None) -> Loader:
        """The loader of steps of that shape."""
        if shape not in self._shaped:
            self._shaped[shape] = self.config.shaped(shape)
        return self._shaped[shape]

    def step_at(self, position: int, shape: StepShape | None = None) -> list[Batch]:
        """The micro-batches of this process for the step that begins at `position`, on the CPU."""
        return self._cut(self.shaped(shape), position)[0]

    def _cut(self, loader: Loader, position: int) -> tuple[list[Batch], int]:
        spans, following = loader.read(self.stream, position, self.bos_id)
        rows = self.world.share(loader.rows_per_step)
        return loader.cut(spans, rows, self.bos_id, self.micro_batch_tokens), following

    def fetch(self, shape: StepShape | None = None) -> list[Batch]:
        """The next step, cut as `shape` says or as the loader itself does.

        What was read ahead in another shape, or from another position, is dropped: nothing but `position` is remembered.
        """
        reader = self._reader
        if reader is None or reader.shape != shape or reader.position != self.position:
            self.close()
            reader = self._reader = self._start(shape)
        item = reader.ready.get()
        if isinstance(item, BaseException):
            self.close()  # its thread has ended: whoever asks again starts another
            raise item
        batches, self.position = item
        reader.position = self.position
        return [_map(batch, lambda t: t.to(self.world.device, non_blocking=True)) for batch in batches]

    def close(self) -> None:
        """Stop reading ahead."""
        if self._reader is not None:
            self._reader.stop.set()
            self._reader.thread.join(timeout=5)
            self._reader = None

    def __iter__(self) -> Iterator[list[Batch]]:
        """Steps for ever, in the loader's own shape."""
        try:
            while True:
                yield self.fetch()
        finally:
            self.close()

    def _start(self, shape: StepShape | None) -> _Reader:
        loader, begin, pin = self.shaped(shape), self.position, self.world.device != "cpu"

        def produce() -> None:
            position = begin
            try:
                while not reader.stop.is_set():
                    batches, position = self._cut(loader, position)
                    pinned = [_map(batch, lambda t: t.pin_memory() if pin else t) for batch in batches]
                    _put(reader.ready, (pinned, position), reader.stop)
            except BaseException as problem:
                _put(reader.ready, problem, reader.stop)

        reader = _Reader(shape, begin, queue.Queue(self._read_ahead), produce)
        reader.thread.start()
        return reader


@dataclass
class _Reader:
    """A thread that cuts steps of one shape ahead of time, and where the next one that it hands out begins."""

    shape: StepShape | None
    position: int
    ready: queue.Queue
    produce: Callable[[], None]
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.produce, daemon=True, name="loader")


def synthetic_step(loader: Loader, vocab_size: int, bos_id: int, world: World, micro_batch_tokens: int) -> list[Batch]:
    """A step of random tokens in the shapes of real ones, for warm-up: no real text is touched before the clock starts."""
    rng = np.random.default_rng(0)
    spans = rng.integers(0, vocab_size, size=(loader.spans, loader.span_tokens + 1), dtype=np.uint16)
    spans[:, :: max(1, loader.seq_len // 2)] = bos_id
    batches = loader.cut(spans, world.share(loader.rows_per_step), bos_id, micro_batch_tokens)
    return [_map(batch, lambda t: t.to(world.device)) for batch in batches]


def _put(ready: queue.Queue, item: object, stop: threading.Event) -> None:
    """Wait for room, but not longer than the consumer lives."""
    while not stop.is_set():
        with suppress(queue.Full):
            ready.put(item, timeout=0.1)
            return


def _parts(rows: range, row_tokens: int, micro_batch_tokens: int) -> list[range]:
    """`rows` cut into the fewest nearly equal ranges of at most `micro_batch_tokens` tokens each, or of single rows."""
    count = -(-len(rows) // max(1, micro_batch_tokens // row_tokens))
    return [range(rows.start + len(rows) * i // count, rows.start + len(rows) * (i + 1) // count) for i in range(count)]


def _map(batch: Batch, function: object) -> Batch:
    move = lambda t: function(t) if isinstance(t, Tensor) else t  # type: ignore[operator]  # noqa: E731
    return Batch(move(batch.inputs), move(batch.targets), Context(*(move(part) for part in batch.context)))
