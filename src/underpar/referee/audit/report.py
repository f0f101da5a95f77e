"""What an audit has to say about one folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from underpar.referee.audit.outcome import Note, class_of
from underpar.referee.audit.significance import RecordRule, Significance
from underpar.referee.verdict import CheckResult, Verdict


@dataclass(frozen=True)
class Interval:
    """A score, computed again from the logs: n runs, their mean, sample deviation and 95 % interval of the mean."""

    metric: str
    values: dict[str, float]
    """Run -> score. The run is its seed where one is known, else its log."""
    mean: float
    sd: float | None
    low: float | None
    high: float | None

    @property
    def n(self) -> int:
        return len(self.values)

    def __str__(self) -> str:
        if self.sd is None:
            return f"{self.metric} {self.mean:.6f} (1 run, no spread known)"
        return (
            f"{self.metric} {self.mean:.6f} (mean of {self.n}, sample sd {self.sd:.5f}, "
            f"95 % {self.low:.6f} to {self.high:.6f})"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric, "n": self.n, "mean": self.mean, "sd": self.sd, "low": self.low, "high": self.high,
            "values": self.values,
        }  # fmt: skip


@dataclass(frozen=True)
class Report:
    """One audited folder. The verdict's word follows from its checks; notes and record rules stand beside it."""

    folder: str
    name: str
    track: str
    track_assumed: bool
    is_speedrun: bool
    date: str
    author: str
    verdict: Verdict
    notes: tuple[Note, ...] = ()
    score: Interval | None = None
    stated: float | None = None
    """The headline of submission.json."""
    seconds: tuple[float, ...] = ()
    """Training seconds of the runs."""
    steps: tuple[int, ...] = ()
    counts_steps: bool = False
    """The track ranks by steps."""
    largest_bytes: int | None = None
    bytes_per_token: float | None = None
    rules: tuple[RecordRule, ...] = ()
    significance: Significance | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def cost(self) -> tuple[str, list[float]]:
        """What a speedrun is ranked by: ('seconds' or 'steps', one for each run)."""
        return ("steps", [float(n) for n in self.steps]) if self.counts_steps else ("seconds", list(self.seconds))

    @property
    def failures(self) -> list[CheckResult]:
        return [check for check in self.verdict.checks if check.passed is False]

    @property
    def classes(self) -> list[str]:
        """Classes of the failed checks, then of the suspicions, each once."""
        failed = [class_of(check) for check in self.failures]
        return list(dict.fromkeys([name for name in (*failed, *(n.vclass for n in self.notes)) if name]))

    @property
    def suspicions(self) -> list[Note]:
        return [note for note in self.notes if note.is_suspicion]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "folder": self.folder,
            "name": self.name,
            "track": self.track,
            "track_assumed": self.track_assumed,
            "date": self.date,
            "author": self.author,
            **self.verdict.to_json(),
            "flags": self.classes,
            "score": self.score.to_json() if self.score else None,
            "stated_score": self.stated,
            "train_seconds": list(self.seconds),
            "train_steps": list(self.steps),
            "largest_artifact_bytes": self.largest_bytes,
            "bytes_per_token": self.bytes_per_token,
            "record_rules": [rule.to_json() for rule in self.rules],
            "significance": self.significance.to_json() if self.significance else None,
            "notes": [note.to_json() for note in self.notes],
            "facts": self.facts,
        }
