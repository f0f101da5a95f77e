"""Documents as units: does their order reach back, and does the end of one reach into the next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from underpar.referee.predictor import Predictor
from underpar.referee.probes.flip import Comparison, alter, ordinary_ids, tolerance

LAST_TOKENS = 4
"""A local look-back reads these at most; what stands before them in the document is changed on its own."""
EARLIER_TOKENS = 64
LEAST_DOCUMENT = 2 * LAST_TOKENS + 2
LEAST_STARTS = 3
LONGEST_SEGMENT = 4096


@dataclass(frozen=True)
class OrderResult:
    """Two neighbouring documents were exchanged."""

    swaps: int
    documents: int
    noise_nats: float
    earlier_change_nats: float
    """Largest change, that came back, of a charge before the two."""
    first_moved: int | None
    """The token position of the first such charge."""
    swapped_change_nats: float
    """Largest change of the sum of one of the two documents."""
    later_change_nats: float
    """Largest change of the sum of a later document."""

    @property
    def is_fixed(self) -> bool:
        """Whether a document costs the same wherever it stands."""
        return max(self.swapped_change_nats, self.later_change_nats) <= 100 * tolerance(self.noise_nats)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"is_fixed": self.is_fixed}


@dataclass(frozen=True)
class IsolationResult:
    """The end of a document was altered, and then its earlier part; what moved in the next document."""

    boundaries: tuple[int, ...]
    """Token positions of the BOS tokens between the two."""
    noise_nats: float
    last_change_nats: float
    """Largest change of a charge of the next document when the last token before it is another one."""
    earlier_change_nats: float
    """The same when tokens before the last four are altered."""

    @property
    def tolerance_nats(self) -> float:
        return tolerance(self.noise_nats)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"tolerance_nats": self.tolerance_nats}


def document_starts(tokens: np.ndarray, bos_id: int | None) -> np.ndarray:
    """Positions of BOS."""
    return np.flatnonzero(tokens == bos_id) if bos_id is not None else np.zeros(0, dtype=np.int64)


def document_segment(tokens: np.ndarray, bos_id: int | None, length: int) -> np.ndarray:
    """The stretch of at most `length` tokens, from the start of a document, that holds the most of them.

    The first such stretch. Where not even three documents begin in one, the shortest in which they do, if that is not longer
    than 4,096 tokens; else the beginning of the stream.
    """
    starts = document_starts(tokens, bos_id)
    if len(starts) < LEAST_STARTS:
        return tokens[:length]
    ends = np.append(starts[LEAST_STARTS:], len(tokens))
    shortest = int((ends - starts[: len(ends)]).min())
    length = max(length, shortest) if shortest <= LONGEST_SEGMENT else length
    held = np.searchsorted(starts, starts + length) - np.arange(len(starts))
    best = int(np.argmax(held))
    first = int(starts[best]) if held[best] >= LEAST_STARTS else 0
    return tokens[first : first + length]


def document_order(predictor: Predictor, tokens: np.ndarray, seed: int, swaps: int) -> OrderResult | None:
    """Exchange neighbouring whole documents. None where the stream has no two whole ones behind the first token.

    Cost: 2 + swaps scorings.
    """
    starts = document_starts(tokens, predictor.bos_id)
    ends = [*starts[2:].tolist(), len(tokens)]
    pairs = [(int(a), int(b), int(c)) for a, b, c in zip(starts, starts[1:], ends, strict=False) if a >= 2]
    if not pairs:
        return None
    generator = np.random.default_rng(seed)
    comparison = Comparison(predictor, tokens)
    earlier, moved, swapped, later = 0.0, None, 0.0, 0.0
    picked = generator.choice(len(pairs), min(swaps, len(pairs)), replace=False).tolist()
    for first, middle, end in (pairs[index] for index in sorted(picked)):
        altered = np.concatenate([tokens[:first], tokens[middle:end], tokens[first:middle], tokens[end:]])
        change = comparison.earlier_change(altered, first + 1)
        if len(change) and change.max() > max(earlier, tolerance(comparison.noise)):
            moved = int(np.flatnonzero(change > tolerance(comparison.noise))[0]) + 1
        earlier = max(earlier, float(change.max()) if len(change) else 0.0)
        found = comparison.last
        length = end - middle
        # The first token of a document is predicted from the one before it: the sums are those of what follows.
        swapped = max(
            swapped,
            abs(_sum(found, first + 1, first + length) - _sum(comparison.base, middle + 1, end)),
            abs(_sum(found, first + length + 1, end) - _sum(comparison.base, first + 1, middle)),
        )
        tails = [*starts[starts >= end].tolist(), len(tokens)]
        for start, stop in pairwise(tails):
            later = max(later, abs(_sum(found, start + 1, stop) - _sum(comparison.base, start + 1, stop)))
    return OrderResult(len(picked), len(starts), comparison.noise, earlier, moved, swapped, later)


def _sum(charges: np.ndarray, first: int, stop: int) -> float:
    """What the tokens at positions first .. stop - 1 cost."""
    return float(np.nansum(np.minimum(charges[first - 1 : stop - 1], 1e6)))


def document_isolation(predictor: Predictor, tokens: np.ndarray, seed: int, boundaries: int) -> IsolationResult | None:
    """Alter the last token before a document, and apart from it earlier ones, and look at the document's own charges.

    The charge of its BOS is left out: that one may know what came before. None where no document is long enough.
    Cost: 2 + 2 * boundaries scorings.
    """
    starts = document_starts(tokens, predictor.bos_id)
    ends = [*starts[1:].tolist(), len(tokens)]
    usable = [
        (int(previous), int(start), int(end))
        for previous, start, end in zip(starts, starts[1:], ends[1:], strict=False)
        if start - previous >= LEAST_DOCUMENT and end - start >= 3
    ]
    if not usable:
        return None
    generator = np.random.default_rng(seed)
    comparison = Comparison(predictor, tokens)
    ordinary = ordinary_ids(tokens, predictor.bos_id)
    picked = sorted(generator.choice(len(usable), min(boundaries, len(usable)), replace=False).tolist())
    last = earlier = 0.0
    for previous, start, end in (usable[index] for index in picked):
        ending = alter(tokens, start - 1, "token", ordinary, generator)
        body = tokens.copy()
        first = max(previous + 1, start - LAST_TOKENS - EARLIER_TOKENS)
        for place in range(first, start - LAST_TOKENS):
            body = alter(body, place, "token", ordinary, generator)
        inside = slice(start, end - 1)
        last = max(last, float(comparison.change(ending, inside).max()))
        earlier = max(earlier, float(comparison.change(body, inside).max()))
    return IsolationResult(tuple(usable[index][1] for index in picked), comparison.noise, last, earlier)
