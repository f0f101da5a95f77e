"""The process around a predictor: another start, other tokens first, another number of processes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from underpar.referee.predictor import Replayable, Scalable, Warmable
from underpar.referee.probes.flip import alter, difference, ordinary_ids


@dataclass(frozen=True)
class PairResult:
    """Two runs on the same tokens that differ in one thing about the process."""

    what: str
    """What differed."""
    tokens: int
    largest_change_nats: float
    first_moved: int | None
    """The first token position whose charge differs at all."""
    noise_nats: float
    """The same between two runs that differ in nothing."""
    total_nats: float
    other_total_nats: float

    @property
    def relative(self) -> float:
        """Difference of the sums."""
        return abs(self.other_total_nats - self.total_nats) / max(self.total_nats, 1e-9)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"relative": self.relative}


def _pair(what: str, one: np.ndarray, other: np.ndarray, noise: float) -> PairResult:
    change = difference(one, other)
    moved = np.flatnonzero(change > 0)
    first = int(moved[0]) + 1 if len(moved) else None
    sums = (float(np.nansum(np.minimum(part, 1e6))) for part in (one, other))
    return PairResult(what, len(one) + 1, float(change.max()), first, noise, *sums)


def replay(
    predictor: Replayable, tokens: np.ndarray, base: np.ndarray, noise: float, seed: int, bos_id: int | None
) -> PairResult:
    """Charged by a program that was started for it alone, against one that has answered before.

    The new program is given a text whose second half is another one: what it charges in the first half is what it knows
    without having seen the other text, before or behind.
    """
    middle = len(tokens) // 2
    altered = alter(tokens, middle, "text", ordinary_ids(tokens, bos_id), np.random.default_rng(seed))
    return _pair("a program started anew", base[: middle - 1], predictor.fresh_charges(altered)[: middle - 1], noise)


def warm_up(predictor: Warmable, tokens: np.ndarray, noise: float, seed: int) -> PairResult:
    """Warmed up on one random text and on another: what came before must not be in the charges."""
    generator = np.random.default_rng(seed)
    ids = ordinary_ids(tokens, None)
    one, other = (generator.choice(ids, len(tokens)).astype(tokens.dtype) for _ in range(2))
    one[0] = other[0] = tokens[0]  # texts begin with the start of a document, where there is one
    found = predictor.charges_after(one, tokens), predictor.charges_after(other, tokens)
    return _pair("the tokens of the warm-up", *found, noise)


def world_size(predictor: Scalable, tokens: np.ndarray, noise: float, processes: int) -> PairResult:
    """The work shared by several processes, against one."""
    one, several = predictor.charges_on(1, tokens), predictor.charges_on(processes, tokens)
    return _pair(f"{processes} processes, which share {predictor.work(tokens)},", one, several, noise)
