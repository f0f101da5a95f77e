"""Time to a target loss: runs that reach it have a time, runs that miss it are censored and never given one.

The claim is about the mean loss (one-sided t-test against the target); the result is the time. Both are kept apart, with the
distance from failing: how many standard errors the mean lies below the target, and how likely one more run misses.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from underpar.stats.samples import StatsError, Summary, summarise
from underpar.stats.ttest import TTest, one_sample, welch

MISSED = "999999"
"""What the field prints for a run that misses. Shown, never computed with."""


@dataclass(frozen=True)
class TimedRun:
    """One run: the seconds on its clock when it ended, and the validation loss there."""

    label: str
    loss_nats: float
    seconds: float
    machine: str = ""
    """Runs are compared in time only within a machine."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise StatsError(f"{self.label}: {self.seconds} s is no time; a run that did not end has no place here")
        if not math.isfinite(self.loss_nats):
            raise StatsError(f"{self.label}: loss {self.loss_nats}; a run that diverged is declared, not averaged")

    def reaches(self, target_nats: float) -> bool:
        return self.loss_nats <= target_nats

    def shown_seconds(self, target_nats: float) -> str:
        """The time to the target as tables have it."""
        return f"{self.seconds:.3f}" if self.reaches(target_nats) else MISSED


@dataclass(frozen=True)
class TimeToTarget:
    """What runs of one recipe say about one target."""

    target_nats: float
    runs: tuple[TimedRun, ...]
    losses: Summary | None
    """None for a single run."""
    seconds: Summary | None
    """Of the runs that reached the target; None where fewer than two did."""
    test: TTest | None
    """One-sided, mean loss below the target."""
    margin: float | None
    """How far the mean loss lies below the target, in standard errors of the mean; negative above it."""
    miss_chance: float | None
    """The chance that one more run of this recipe misses: Student's predictive distribution of the losses."""

    @property
    def reached(self) -> tuple[TimedRun, ...]:
        return tuple(run for run in self.runs if run.reaches(self.target_nats))

    @property
    def missed(self) -> tuple[TimedRun, ...]:
        return tuple(run for run in self.runs if not run.reaches(self.target_nats))

    @property
    def passes(self) -> bool:
        """Whether the rule of the tracks is met: mean loss at most the target at p < 0.01."""
        return self.test is not None and self.test.significant

    def sentence(self) -> str:
        """The outcome in one sentence, misses first."""
        count = f"{len(self.reached)} of {len(self.runs)} runs reach {self.target_nats:g}"
        if self.missed:
            ends = ", ".join(
                f"{run.label} ends at {run.loss_nats:.4f} after {run.seconds:.2f} s" for run in self.missed
            )
            count += f" ({ends}; no time is counted for {'it' if len(self.missed) == 1 else 'them'})"
        if self.seconds is not None:
            of = " of those" if self.missed else ""
            count += f"; time{of} {self.seconds.mean:.3f} s, {self.seconds.confidence:.0%} interval {self.seconds.low:.3f} to "
            count += f"{self.seconds.high:.3f}"
        if self.test is not None and self.margin is not None and self.miss_chance is not None:
            count += f"; {self.test}; {self.margin:.2f} standard errors of margin, one more run misses with chance "
            count += f"{self.miss_chance:.1%}"
        return count + "."

    def to_json(self) -> dict[str, Any]:
        """Plain data; a missed run has no time to the target, and NaN becomes null."""
        return {
            "target_nats": self.target_nats,
            "runs": [
                {
                    "run": run.label,
                    "machine": run.machine,
                    "loss_nats": run.loss_nats,
                    "train_seconds": run.seconds,
                    "seconds_to_target": run.seconds if run.reaches(self.target_nats) else None,
                }
                for run in self.runs
            ],
            "missed": len(self.missed),
            "losses": _figures(self.losses),
            "seconds_of_those_that_reached": _figures(self.seconds),
            "test": self.test.to_json() if self.test else None,
            "margin_standard_errors": _finite(self.margin),
            "miss_chance": _finite(self.miss_chance),
            "passes": self.passes,
        }


def time_to_target(runs: Iterable[TimedRun], target_nats: float, *, alpha: float = 0.01) -> TimeToTarget:
    """Judge runs of one recipe. Raises StatsError when there is none, or two have one label."""
    found = tuple(runs)
    if not found:
        raise StatsError("no runs; time to target needs at least one finished run")
    labels = [(run.machine, run.label) for run in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        raise StatsError(f"two runs are called '{twice[1]}'; a run counts once")
    losses = [run.loss_nats for run in found]
    times = [run.seconds for run in found if run.reaches(target_nats)]
    several = len(found) > 1
    summary = summarise(losses) if several else None
    return TimeToTarget(
        target_nats=target_nats,
        runs=found,
        losses=summary,
        seconds=summarise(times) if len(times) > 1 else None,
        test=one_sample(losses, target_nats, alpha=alpha) if several else None,
        margin=_margin(summary, target_nats),
        miss_chance=_miss_chance(summary, target_nats),
    )


def by_machine(runs: Sequence[TimedRun], target_nats: float) -> dict[str, TimeToTarget]:
    """The same question for every machine alone, in order of their names: a pooled test hides what one of them fails."""
    names = sorted({run.machine for run in runs})
    return {name: time_to_target([run for run in runs if run.machine == name], target_nats) for name in names}


def faster(candidate: TimeToTarget, baseline: TimeToTarget, *, alpha: float = 0.01) -> TTest:
    """Welch's one-sided test that the candidate takes less time, over runs that reached the target.

    Raises StatsError when the sets are of different targets or machines, when either has a miss (its time is unknown, and
    leaving it out would flatter), or fewer than two runs.
    """
    if candidate.target_nats != baseline.target_nats:
        raise StatsError(
            f"targets {candidate.target_nats:g} and {baseline.target_nats:g} differ; time both to one target"
        )
    machines = [sorted({run.machine for run in side.runs}) for side in (candidate, baseline)]
    if machines[0] != machines[1]:
        raise StatsError(
            f"machines {machines[0]} and {machines[1]} differ: times compare within a machine; run the baseline on the same"
        )
    for side, which in ((candidate, "candidate"), (baseline, "baseline")):
        if side.missed:
            raise StatsError(
                f"{len(side.missed)} of the {which}'s runs missed {side.target_nats:g}: without their times means cannot be "
                "compared; compare losses, or train longer"
            )
    return welch([run.seconds for run in candidate.runs], [run.seconds for run in baseline.runs], alpha=alpha)


def _margin(losses: Summary | None, target_nats: float) -> float | None:
    if losses is None:
        return None
    difference = target_nats - losses.mean
    return (
        difference / losses.standard_error if losses.sd else math.copysign(math.inf, difference) if difference else 0.0
    )


def _miss_chance(losses: Summary | None, target_nats: float) -> float | None:
    """P(loss > target) of a new run: Student t at n - 1 with scale sd * sqrt(1 + 1/n)."""
    if losses is None:
        return None
    if not losses.sd:
        return float(losses.mean > target_nats)
    from scipy.stats import t

    return float(t.sf((target_nats - losses.mean) / (losses.sd * math.sqrt(1 + 1 / losses.n)), losses.n - 1))


def _figures(summary: Summary | None) -> dict[str, float] | None:
    if summary is None:
        return None
    return {key: getattr(summary, key) for key in ("n", "mean", "sd", "low", "high", "confidence")}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
