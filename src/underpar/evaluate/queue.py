"""Which chunk of which document is charged in which forward pass: decided before the first one, by lengths alone.

Documents are dealt to slots, each slot works through its own one after the other, and a slot whose document has ended goes on
with the next at once. A pass takes slots whose windows need about the same width, those with the most work left first.
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Document(NamedTuple):
    """Input positions [start, stop) of the stream; the target of input position i is token i + 1."""

    number: int
    """In the stream."""
    start: int
    stop: int

    @property
    def tokens(self) -> int:
        return self.stop - self.start


class Row(NamedTuple):
    """One chunk of one document: positions [first, stop), predicted from inputs [window, stop)."""

    slot: int
    document: Document
    window: int
    first: int
    stop: int

    @property
    def begins(self) -> bool:
        """Whether the document begins with it."""
        return self.first == self.document.start

    @property
    def goes_on(self) -> bool:
        """Whether a later chunk is there to profit from it."""
        return self.stop < self.document.stop


class Step(NamedTuple):
    """Rows of one forward pass, each padded to `width` tokens."""

    width: int
    rows: list[Row]


class Shapes(NamedTuple):
    """The few shapes of forward passes: rows of each width."""

    widths: tuple[int, ...]
    """Ascending; the last is the context."""
    step_tokens: int

    @classmethod
    def of(cls, context: int, step_tokens: int) -> "Shapes":
        """Half the context for young documents, the context for the others."""
        return cls(tuple(sorted({max(1, context // 2), context})), step_tokens)

    def rows(self, width: int) -> int:
        return max(1, self.step_tokens // width)

    def width_for(self, tokens: int) -> int:
        return next(width for width in self.widths if width >= tokens)


def documents_of(document_starts: np.ndarray, targets: int) -> list[Document]:
    """Every document that predicts something, in stream order. Its last target is the start of the next."""
    bounds = np.append(document_starts[document_starts < targets], targets).tolist()
    return [Document(i, a, b) for i, (a, b) in enumerate(pairwise(bounds)) if b > a]


def chunks(document: Document, chunk: int) -> int:
    return -(-document.tokens // chunk)


def window_tokens(document: Document, chunk: int, shapes: Shapes) -> int:
    """Tokens of all forward passes over a document, padding to a width included: what it costs."""
    total = 0
    for stop in range(chunk, document.tokens + chunk, chunk):
        stop = min(stop, document.tokens)
        if stop >= shapes.widths[-1]:
            left = -(-(document.tokens - stop) // chunk)
            return total + shapes.widths[-1] * (1 + left)
        total += shapes.width_for(stop)
    return total


def lineages(documents: Sequence[Document], slots: int) -> list[list[Document]]:
    """The documents of every slot, in the given order: document i follows document i - slots."""
    return [list(documents[slot::slots]) for slot in range(min(slots, len(documents)))]


def share(costs: Sequence[int], size: int) -> list[list[int]]:
    """Indices of the tasks of each of `size` workers: the dearest task first, to whoever has least so far."""
    loads = [(0, worker) for worker in range(size)]
    parts: list[list[int]] = [[] for _ in range(size)]
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, worker = heapq.heappop(loads)
        parts[worker].append(index)
        heapq.heappush(loads, (load + costs[index], worker))
    return [sorted(part) for part in parts]


class _Slot:
    """Where one slot stands in its documents."""

    def __init__(self, number: int, documents: list[Document], chunk: int) -> None:
        self.number, self.chunk = number, chunk
        self._waiting = iter(documents)
        self._document: Document | None = next(self._waiting, None)
        self._done = 0
        self.left = sum(chunks(d, chunk) for d in documents)

    def next_row(self, context: int) -> Row:
        document = self._document
        assert document is not None
        first = document.start + self._done
        stop = min(first + self.chunk, document.stop)
        return Row(self.number, document, max(document.start, stop - context), first, stop)

    def advance(self) -> None:
        assert self._document is not None
        self.left -= 1
        self._done += self.chunk
        if self._done >= self._document.tokens:
            self._document, self._done = next(self._waiting, None), 0


def steps(slots: Sequence[list[Document]], chunk: int, shapes: Shapes) -> Iterator[Step]:
    """Every chunk of every document once, those of a document in order.

    A width of which a whole pass is ready goes first, and of several the one whose first slot has the most chunks left.
    """
    context = shapes.widths[-1]
    active = [_Slot(number, documents, chunk) for number, documents in enumerate(slots)]
    active = [slot for slot in active if slot.left]
    while active:
        ready: dict[int, list[tuple[int, int, _Slot, Row]]] = {}
        for slot in active:
            row = slot.next_row(context)
            width = shapes.width_for(row.stop - row.window)
            ready.setdefault(width, []).append((-slot.left, slot.number, slot, row))
        for waiting in ready.values():
            waiting.sort(key=lambda entry: entry[:2])
        full = [width for width, waiting in ready.items() if len(waiting) >= shapes.rows(width)]
        width = min(full or ready, key=lambda w: (ready[w][0][0], -w))
        chosen = ready[width][: shapes.rows(width)]
        yield Step(width, [row for _, _, _, row in chosen])
        for _, _, slot, _ in chosen:
            slot.advance()
        active = [slot for slot in active if slot.left]
