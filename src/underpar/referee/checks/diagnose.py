"""Which classes a failed probe looks like, the likeliest first. A black box shows what moved, not why: no proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHORT_REACH = 8
"""A look ahead of a few tokens; what is fitted to a window reaches further."""
DENSE = 0.5
"""Share of the charges from the first moved one up to the alteration that moves when a scale of a window was fitted."""
WINDOW_BEGINS = 0.1
"""The first moved charge lies at least this far into the text when only a window of it moved."""

Trial = Mapping[str, Any]


def flip_classes(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Classes of a predictor whose earlier charges move with later tokens."""
    moving = [trial for trial in trials if trial["moved"]]
    if not moving:
        return ()
    if all(_reach(trial) <= SHORT_REACH for trial in moving):
        return ("V02", "V05")
    far = [trial for trial in moving if trial["position"] > 64]
    if far and all(trial["moved"] > DENSE * _reach(trial) for trial in far) and any(map(_is_window, far)):
        return ("V02", "V01", "V03")
    last = max(trial["position"] for trial in moving)
    if any(not trial["moved"] and trial["position"] > 2 * last for trial in trials):
        return ("V12", "V13", "V01")
    return ("V01", "V03", "V12", "V02")


def _reach(trial: Trial) -> int:
    """How far back the alteration acted."""
    return trial["position"] - trial["first_moved"]


def _is_window(trial: Trial) -> bool:
    return trial["first_moved"] > WINDOW_BEGINS * trial["position"]


def sum_classes(least: float, largest: float, tolerance: float) -> tuple[str, ...]:
    """Classes of a predictor whose probabilities do not sum to 1."""
    above, below = largest > 1 + tolerance, least < 1 - tolerance
    if largest > 2.5:
        return ("V04", "V06", "V07")
    if above and below:
        return ("V05", "V06", "V04")
    if above:
        return ("V07", "V04", "V05", "V28", "V06")
    return ("V05", "V06", "V28") if below else ()


CANARY_CLASSES = ("V04", "V07", "V02", "V03", "V01", "V05", "V06", "V28")
"""A saving on random text tells that the target was seen or the sum is too large, and not how."""
