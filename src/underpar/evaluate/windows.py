"""Which positions a forward pass sees, and which of them it scores."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, NamedTuple

import numpy as np

from underpar.core.config import Config, PositiveInt, Range, config
from underpar.core.errors import ConfigError

ContextTokens = Annotated[int, Range(at_least=1, at_most=1 << 20)]
"""Bounded, because an artifact names its window and a score allocates by it."""


ONE_DOCUMENT = np.zeros(1, dtype=np.int64)


class Span(NamedTuple):
    """Input positions [start, stop) of the stream; the targets of [score_from, stop) are scored.

    The target of input position i is stream token i + 1.
    """

    start: int
    score_from: int
    stop: int


class Window(Config):
    """How the held-out stream is cut into forward passes. Every target is scored exactly once, tails included."""

    is_packed: ClassVar[bool] = False
    """Whether attention stays within documents; a batch is then one row."""
    shares_rows: ClassVar[bool] = False
    """Whether many spans share a row, as they may where each lies within one document; else each span is a row."""

    context: ContextTokens

    def spans(self, targets: int, document_starts: np.ndarray = ONE_DOCUMENT) -> Iterator[Span]:
        """Spans in stream order for a stream with `targets` predictable tokens.

        document_starts: (documents,) ascending positions in the stream.
        """
        raise NotImplementedError


@config
class Flat(Window):
    """Rows of `context` tokens side by side: one pass over the text; a token has 0 to context - 1 tokens of history."""

    context: ContextTokens = 1024

    def spans(self, targets: int, document_starts: np.ndarray = ONE_DOCUMENT) -> Iterator[Span]:
        for start in range(0, targets, self.context):
            yield Span(start, start, min(start + self.context, targets))


@config
class Documents(Window):
    """Each document by itself, in stretches of `context` tokens from its start; many share a forward pass.

    What a model trained on packed documents expects. The last token of a document predicts the start of the next.
    Source: the diagnostics of the golf PR #1530 line.
    """

    is_packed: ClassVar[bool] = True
    shares_rows: ClassVar[bool] = True

    context: ContextTokens = 2048

    def spans(self, targets: int, document_starts: np.ndarray = ONE_DOCUMENT) -> Iterator[Span]:
        bounds = np.union1d(document_starts[document_starts < targets], (0, targets))
        for first, last in pairwise(bounds.tolist()):
            for start in range(first, last, self.context):
                yield Span(start, start, min(start + self.context, last))


@config
class Contiguous(Window):
    """Stretches of `context` tokens side by side, wherever documents begin; attention stays within the documents of each.

    Only a document that lies across the end of a stretch loses its history there. Source: modded-nanogpt.
    """

    is_packed: ClassVar[bool] = True

    context: ContextTokens = 262_144

    def spans(self, targets: int, document_starts: np.ndarray = ONE_DOCUMENT) -> Iterator[Span]:
        for start in range(0, targets, self.context):
            yield Span(start, start, min(start + self.context, targets))


@config
class Sliding(Window):
    """Windows of `context` tokens that start `stride` apart: each token after the first window has at least
    context - stride tokens of history. The first window is scored whole, each later one on its last part; the last may
    be short. Costs about context / stride passes over the text. Source: golf PR #1530 (the rule that scores each once).
    """

    context: ContextTokens = 1024
    stride: PositiveInt = 64

    def check(self) -> None:
        if self.stride > self.context:
            raise ConfigError(f"stride = {self.stride} must not exceed context = {self.context}, or tokens are skipped")

    def spans(self, targets: int, document_starts: np.ndarray = ONE_DOCUMENT) -> Iterator[Span]:
        overlap = self.context - self.stride
        start = 0
        while start == 0 or start + overlap < targets:
            yield Span(start, start if start == 0 else start + overlap, min(start + self.context, targets))
            start += self.stride
