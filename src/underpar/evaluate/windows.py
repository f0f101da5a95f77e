"""Which positions a forward pass sees, and which of them it scores."""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

from underpar.core.config import Config, PositiveInt, Range, config
from underpar.core.errors import ConfigError

ContextTokens = Annotated[int, Range(at_least=1, at_most=1 << 20)]
"""Bounded, because an artifact names its window and a score allocates by it."""


class Span(NamedTuple):
    """Input positions [start, stop) of the stream; the targets of [score_from, stop) are scored.

    The target of input position i is stream token i + 1.
    """

    start: int
    score_from: int
    stop: int


class Window(Config):
    """How the held-out stream is cut into forward passes. Every target is scored exactly once, tails included."""

    context: ContextTokens

    def spans(self, targets: int) -> Iterator[Span]:
        """Spans in stream order for a stream with `targets` predictable tokens."""
        raise NotImplementedError


@config
class Flat(Window):
    """Rows of `context` tokens side by side: one pass over the text; a token has 0 to context - 1 tokens of history."""

    context: ContextTokens = 1024

    def spans(self, targets: int) -> Iterator[Span]:
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

    def spans(self, targets: int) -> Iterator[Span]:
        overlap = self.context - self.stride
        start = 0
        while start == 0 or start + overlap < targets:
            yield Span(start, start if start == 0 else start + overlap, min(start + self.context, targets))
            start += self.stride
