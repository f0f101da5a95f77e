"""Times of different machines on one scale: anchor runs of a reference recipe give each machine a factor.

One factor cannot serve every recipe: parts bound by arithmetic, memory and launches scale differently. Calibrated times are for
comparing machines among themselves; a claim uses raw times of the machine that counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from underpar.stats.samples import StatsError, Summary, summarise

MAX_AGE_DAYS = 7.0
MAX_DRIFT_ERRORS = 3.0
"""Fresh anchor runs may differ from the old ones by so many standard errors of the difference."""


@dataclass(frozen=True)
class Calibration:
    """How fast one machine is, measured by anchor runs. `factor` times its seconds are seconds of the reference."""

    machine: str
    machine_class: str
    """Digest of what the machine is: another driver, power limit or GPU is another machine."""
    recipe: str
    reference_seconds: float
    anchors: Summary
    anchor_runs: tuple[str, ...]
    day: float
    """When the anchors ran, in days of any one calendar."""

    @property
    def factor(self) -> float:
        return self.reference_seconds / self.anchors.mean

    @property
    def standard_error(self) -> float:
        """Of the factor: that of the anchors' mean, relatively."""
        return self.factor * self.anchors.standard_error / self.anchors.mean

    def apply(self, seconds: Sequence[float], *, confidence: float = 0.95) -> "CalibratedTime":
        """The mean of raw times on the reference's scale; its interval includes the factor's error."""
        raw = summarise(seconds, confidence=confidence)
        mean = raw.mean * self.factor
        parts = (raw.standard_error / raw.mean, self.anchors.standard_error / self.anchors.mean)
        dfs = (raw.n - 1, self.anchors.n - 1)
        relative = math.hypot(*parts)
        half = _student(_satterthwaite(parts, dfs), confidence) * mean * relative if relative else 0.0
        return CalibratedTime(raw, self.factor, mean, mean - half, mean + half, confidence)

    def why_expired(self, machine_class: str, day: float, fresh: Sequence[float] = ()) -> str | None:
        """Why this calibration may not be used now; None when it may. fresh: seconds of anchor runs made since."""
        if machine_class != self.machine_class:
            return (
                f"{self.machine} has changed (class {self.machine_class}, now {machine_class}): run the anchors again"
            )
        if day - self.day > MAX_AGE_DAYS:
            return f"the anchors of {self.machine} are {day - self.day:.1f} days old, over {MAX_AGE_DAYS:g}: run them again"
        if len(fresh) > 1:
            now = summarise(fresh)
            error = math.hypot(now.standard_error, self.anchors.standard_error)
            drift = abs(now.mean - self.anchors.mean)
            if drift > MAX_DRIFT_ERRORS * error:
                return (
                    f"the anchors of {self.machine} drifted by {drift:.3f} s, over {MAX_DRIFT_ERRORS:g} standard errors of "
                    f"{error:.3f}: calibrate from the new ones"
                )
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "machine_class": self.machine_class,
            "recipe": self.recipe,
            "reference_seconds": self.reference_seconds,
            "anchor_runs": list(self.anchor_runs),
            "anchor_mean_seconds": self.anchors.mean,
            "anchor_sd_seconds": self.anchors.sd,
            "day": self.day,
            "factor": self.factor,
            "factor_standard_error": self.standard_error,
        }


@dataclass(frozen=True)
class CalibratedTime:
    """A mean time on the reference's scale, beside the raw one."""

    raw: Summary
    factor: float
    mean: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return (
            f"{self.mean:.3f} s calibrated ({self.confidence:.0%} interval {self.low:.3f} to {self.high:.3f}, the error of the "
            f"factor in it; raw {self.raw.mean:.3f} s x {self.factor:.4f}): for comparing machines, no official time"
        )


def calibrate(
    machine: str, machine_class: str, recipe: str, runs: dict[str, float], reference_seconds: float, day: float
) -> Calibration:
    """The factor of one machine from its anchor runs (label -> seconds).

    Raises StatsError for fewer than two runs: a factor without an error is a guess.
    """
    if not (reference_seconds > 0 and math.isfinite(reference_seconds)):
        raise StatsError(f"reference = {reference_seconds} s: must be positive and finite")
    if len(runs) < 2:
        raise StatsError(f"{len(runs)} anchor run(s) on {machine}: at least 2 are needed for an error of the factor")
    return Calibration(
        machine, machine_class, recipe, reference_seconds, summarise(runs.values()), tuple(sorted(runs)), day
    )


def _satterthwaite(parts: tuple[float, float], dfs: tuple[int, int]) -> float:
    weights = sum(part**4 / df for part, df in zip(parts, dfs, strict=True))
    return math.hypot(*parts) ** 4 / weights if weights else math.inf


def _student(df: float, confidence: float) -> float:
    from scipy.stats import norm, t

    share = 0.5 + confidence / 2
    return float(norm.ppf(share) if math.isinf(df) else t.ppf(share, df))
