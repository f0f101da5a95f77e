"""What a tokenizer that rewrites its text loses, and what it costs to say it.

Given the tokens, the original is told token by token: "as the token reads", or how it differs. The code below learns how often
each difference occurs and is decodable, so that its length is an upper bound of what was not predicted. Added to the bits of
the tokens it makes a score of the exact text.

The code: in each of four contexts (does the token begin with a space, does the one before it end a sentence) an event that has
occurred n times among N costs log2((N + 1) / n), a new one log2(N + 1) and its description. The total does not depend on
the order of the events. Source: the estimator of prediction by partial matching, method A (Moffat, 1990).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from underpar.data.sentencepiece_models import SentencePieceTokenizer

SENTENCE_ENDS = tuple(b".!?:\"')")

Event = tuple[int, int, str]
"""Where in the token's text, how many characters of it, and what stood there in the original."""


@dataclass
class Recovery:
    """Differences between documents and what their tokens read as, added up."""

    tokenizer: SentencePieceTokenizer
    events: list[Counter[Event]] = field(default_factory=lambda: [Counter() for _ in range(4)])
    """By context: 2 * (the token before ends a sentence) + (it begins with a space)."""
    units: np.ndarray = field(default_factory=lambda: np.zeros(4, dtype=np.int64))
    """Tokens in each context; the byte pieces of one character are one."""
    whitespace: int = 0
    """Differences in spaces and line ends alone."""
    rewritten_bytes: int = 0
    """Of the original, where it reads otherwise."""

    def __post_init__(self) -> None:
        table = self.tokenizer.token_bytes
        self._text = [piece.decode("utf-8", "replace") for piece in table]
        self._is_byte = np.array([self.tokenizer.is_byte(token) for token in range(len(table))])
        self._spaced = np.array([piece.startswith(b" ") for piece in table])
        self._ends = np.array([piece[-1:] != b"" and piece[-1] in SENTENCE_ENDS for piece in table])

    def add(self, text: str) -> None:
        """One document. Raises DataError for text that cannot be tokenised."""
        written, ids, ends = self.tokenizer.spans(text)
        if not len(ids):
            return
        context = 2 * np.append(False, self._ends[ids[:-1]]) + self._spaced[ids]
        inside = np.append(False, self._is_byte[ids[1:]] & self._is_byte[ids[:-1]])
        firsts = np.flatnonzero(~inside)
        self.units += np.bincount(context[firsts], minlength=4)
        bounds = np.append(firsts, len(ids)).tolist()
        reads = self._reads(ids, bounds)
        stops = ends[np.append(firsts[1:], len(ids)) - 1].tolist()
        start, contexts = 0, context[firsts].tolist()
        for number, stop in enumerate(stops):
            original = written[start:stop]
            if original != reads[number]:
                self._count(contexts[number], original, reads[number])
            start = stop

    def _reads(self, ids: np.ndarray, bounds: Sequence[int]) -> list[str]:
        """What each unit reads as; byte pieces that stand together are one unit."""
        if len(bounds) == len(ids) + 1:
            return [self._text[token] for token in ids.tolist()]
        table = self.tokenizer.token_bytes
        return [
            self._text[ids[low]]
            if high == low + 1
            else b"".join(table[t] for t in ids[low:high]).decode("utf-8", "replace")
            for low, high in pairwise(bounds)
        ]

    def _count(self, context: int, original: str, read: str) -> None:
        low = 0
        while low < min(len(original), len(read)) and original[low] == read[low]:
            low += 1
        high = 0
        while high < min(len(original), len(read)) - low and original[-1 - high] == read[-1 - high]:
            high += 1
        stood, reads = original[low : len(original) - high], read[low : len(read) - high]
        self.events[context][low, len(reads), stood] += 1
        self.whitespace += not stood.strip() and not reads.strip()
        self.rewritten_bytes += len(stood.encode("utf-8", "surrogatepass"))

    @property
    def places(self) -> int:
        """Tokens that read otherwise than the original."""
        return sum(sum(events.values()) for events in self.events)

    @property
    def restore_bits(self) -> float:
        """Length of the code that restores the original from the tokens."""
        return sum(_code_bits(events, int(units)) for events, units in zip(self.events, self.units, strict=True))

    def to_json(self) -> dict[str, Any]:
        return {
            "places": self.places,
            "units": int(self.units.sum()),
            "whitespace_places": self.whitespace,
            "rewritten_bytes": self.rewritten_bytes,
            "restore_bits": self.restore_bits,
        }


def _code_bits(events: Counter[Event], units: int) -> float:
    """Of `units` events in one context; those that are not in `events` are all the same: no difference."""
    plain = units - sum(events.values())
    counts = [*events.values(), *([plain] if plain else [])]
    counted = math.lgamma(units + 1) - sum(math.lgamma(count) for count in counts)
    return counted / math.log(2) + sum(map(_description_bits, events)) + (1 if plain else 0)


def _description_bits(event: Event) -> float:
    """Two numbers and a length by Elias' gamma code, eight bits a byte, and one bit that it is a difference."""
    place, replaced, stood = event
    size = len(stood.encode("utf-8", "surrogatepass"))
    return 1 + 8 * size + sum(2 * (number + 1).bit_length() - 1 for number in (place, replaced, size))
