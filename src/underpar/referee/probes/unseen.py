"""Held-out text against other text of its kind that nobody has seen: a predictor that knows the first pays less there."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from underpar.core.errors import DataError
from underpar.data.shards import open_shard
from underpar.referee.predictor import Predictor
from underpar.referee.probes.documents import document_starts

LEAST_DOCUMENTS = 8


@dataclass(frozen=True)
class UnseenResult:
    """Mean charge per token over documents of the two texts, every document one observation."""

    held_out_nats: float
    unseen_nats: float
    held_out_documents: int
    unseen_documents: int
    z: float
    """Difference over its standard error (Welch); negative when held-out text is cheaper."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def unseen_gap(predictor: Predictor, tokens: np.ndarray, unseen: Path, most_tokens: int) -> UnseenResult:
    """Charge the beginnings of both texts and compare their documents.

    Raises DataError when either has fewer than 8 whole documents in `most_tokens`. Cost: two scorings.
    """
    other = np.asarray(open_shard(unseen))
    length = min(len(tokens), len(other), most_tokens)
    one, two = (_document_means(predictor, part[:length]) for part in (tokens, other))
    for name, means in (("held-out", one), ("unseen", two)):
        if len(means) < LEAST_DOCUMENTS:
            raise DataError(
                f"{length:,} tokens of the {name} text hold {len(means)} whole documents, {LEAST_DOCUMENTS} are "
                "needed; give a longer shard or a larger --budget"
            )
    error = math.sqrt(one.var(ddof=1) / len(one) + two.var(ddof=1) / len(two))
    gap = float(one.mean() - two.mean())
    return UnseenResult(
        float(one.mean()), float(two.mean()), len(one), len(two), gap / error if error else math.copysign(99.0, gap)
    )


def _document_means(predictor: Predictor, tokens: np.ndarray) -> np.ndarray:
    charges = np.minimum(predictor.charges(tokens), 1e3)
    starts = document_starts(tokens, predictor.bos_id)
    pieces = [charges[start : end - 1] for start, end in pairwise(starts)]
    return np.array([np.nanmean(piece) for piece in pieces if len(piece) >= 2])
