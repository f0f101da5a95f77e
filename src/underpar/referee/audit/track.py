"""Which game and track a folder belongs to, and so which limits it is held to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from underpar.core.errors import ConfigError, suggest
from underpar.core.units import GOLF_ARTIFACT_BYTES


@dataclass(frozen=True)
class Track:
    """Limits of a track. None: the track sets none. `assumed`: nothing in the folder said which one it is."""

    name: str
    is_speedrun: bool = False
    artifact_bytes: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    target_nats: float | None = None
    counts_steps: bool = False
    is_record: bool = False
    own_text: bool = False
    """The held-out text is the run's own, not the fixed one of the public game."""
    assumed: bool = False


TRACKS: dict[str, Track] = {
    track.name: track
    for track in (
        Track(
            "golf-record", artifact_bytes=GOLF_ARTIFACT_BYTES, train_seconds=600.0, eval_seconds=600.0, is_record=True
        ),
        Track("golf-non-record", artifact_bytes=GOLF_ARTIFACT_BYTES),
        Track("speedrun-small", is_speedrun=True, target_nats=3.28, is_record=True),
        Track("speedrun-medium", is_speedrun=True, target_nats=2.92, is_record=True),
        Track("speedrun-steps", is_speedrun=True, target_nats=3.28, counts_steps=True, is_record=True),
    )
}


def track_named(name: str) -> Track:
    """Raises ConfigError for an unknown name."""
    if name not in TRACKS:
        raise ConfigError(f"no track '{name}'; {suggest(name, TRACKS)}")
    return TRACKS[name]


def find_track(root: Path, claimed: str, budget: dict[str, Any] | None, *, speedrun: bool) -> Track:
    """From what submission.json says, else from the folders above, else the record track of the game, as an assumption.

    `budget` is the budget of a run made with underpar, whose limits then count.
    """
    said = _from_text(claimed, speedrun) or next(
        (found for part in _parts(root) if (found := _from_text(part, speedrun))), None
    )
    if said is not None and (budget is None or said.name == "golf-record"):
        return said
    if budget is not None:
        return Track(
            "own budget",
            artifact_bytes=_limit(budget, "artifact_bytes", int) or GOLF_ARTIFACT_BYTES,
            train_seconds=_limit(budget, "train_seconds", float),
            eval_seconds=_limit(budget, "eval_seconds", float),
            own_text=True,
        )
    return replace(TRACKS["speedrun-small" if speedrun else "golf-record"], assumed=True)


def _limit(budget: dict[str, Any], key: str, kind: type) -> Any:
    value = budget.get(key)
    return kind(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _parts(root: Path) -> Sequence[str]:
    return root.resolve().parts[-4:][::-1]


def _from_text(text: str, speedrun: bool) -> Track | None:
    words = re.sub(r"[^a-z0-9]+", "_", text.lower())
    if speedrun:
        if "track_3" in words or "optimi" in words:
            return TRACKS["speedrun-steps"]
        if "track_2" in words or "medium" in words:
            return TRACKS["speedrun-medium"]
        return TRACKS["speedrun-small"] if "track_1" in words else None
    if "non_record" in words or "unlimited" in words:
        return TRACKS["golf-non-record"]
    return TRACKS["golf-record"] if "10min_16mb" in words or words == "golf_record" else None
