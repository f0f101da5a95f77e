"""Charges as a predictor hands them over, and what can be wrong with them before anything is judged."""

from __future__ import annotations

import numpy as np

from underpar.core.errors import ScoreError, UnderparError

ROUNDING_NATS = 1e-5
"""A certain token may come out this far below zero; it is counted as zero."""
MAX_UNCHARGED_TAIL = 65_536
"""Positions at the end that published evaluations leave out, because they score whole rows only."""


class ChargeFault(ScoreError):
    """A predictor answered, and the answer cannot be a list of charges. `kind` says what is wrong."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """'count', 'nan', 'negative' or 'form'."""


class ProgramStopped(UnderparError):
    """A predictor gave no answer: it crashed, hung, or passed a limit. Says nothing of whether it is valid."""


class ProgramRaised(ProgramStopped):
    """A predictor raised an error of its own for this question; it can be asked others."""


def checked(values: np.ndarray, positions: int, *, may_lack_tail: bool = False) -> np.ndarray:
    """Charges as float64 (positions,) nats, each at least 0; a missing tail is NaN.

    An infinite charge is a charge: a predictor may be certain, and wrong. may_lack_tail: whether the last positions may
    be uncharged. Raises ChargeFault.
    """
    found = np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "fiu":
        raise ChargeFault("form", f"expected a flat array of numbers, got {found.dtype} of shape {found.shape}")
    found = found.astype(np.float64)
    lacking = positions - len(found)
    allowed = min(MAX_UNCHARGED_TAIL, positions // 2) if may_lack_tail else 0
    if not 0 <= lacking <= allowed:
        raise ChargeFault(
            "count", f"{len(found):,} charges for {positions:,} positions: every token after the first has one charge"
        )
    wrong = np.flatnonzero(np.isnan(found))
    if len(wrong):
        raise ChargeFault("nan", f"the charge of position {wrong[0]:,} is not a number ({len(wrong):,} such positions)")
    wrong = np.flatnonzero(found < -ROUNDING_NATS)
    if len(wrong):
        raise ChargeFault(
            "negative", f"position {wrong[0]:,} costs {found[wrong[0]]:.6g} nats ({len(wrong):,} charges below zero)"
        )
    whole = np.full(positions, np.nan)
    whole[: len(found)] = np.maximum(found, 0.0)
    return whole
