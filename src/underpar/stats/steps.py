"""Fewest steps to a target: the z-rule of the optimiser track, and the step that a result stands on.

(target - mean) * sqrt(n) >= 0.004, which is a z-test with sd 0.0013 at p < 0.001. The stopping step may be chosen afterwards on
the grid of the validations, if it is the same for all runs; a step chosen run by run is no result.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from underpar.stats.samples import StatsError, checked

NEEDED = 0.004
LOSS_PER_100_STEPS = 0.0045
"""What 100 steps are worth near the target, by the rules of the track."""
_ROUNDING = 1e-12


@dataclass(frozen=True)
class StepsToTarget:
    """What runs say about the fewest steps. `step` is the first common validation that passes, else the last one."""

    target_nats: float
    step: int
    losses: tuple[float, ...]
    """Of every run at that step."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.losses)

    @property
    def value(self) -> float:
        """(target - mean) * sqrt(n), to be at least 0.004."""
        return (self.target_nats - self.mean) * math.sqrt(len(self.losses))

    @property
    def passes(self) -> bool:
        return self.value >= NEEDED - _ROUNDING

    def sentence(self) -> str:
        where = f"at step {self.step:,}" if self.passes else f"at no common validation; at the last, step {self.step:,}"
        one = len(self.losses) == 1
        runs = "1 run" if one else f"{len(self.losses)} runs"
        passes, fails = ("passes", "does not pass") if one else ("pass", "do not pass")
        return (
            f"{runs} {passes if self.passes else fails} {self.target_nats:g} {where}: mean "
            f"{self.mean:.5f}, (target - mean) x sqrt(n) = {self.value:.5f}, {NEEDED} is needed."
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "target_nats": self.target_nats,
            "step": self.step,
            "losses": list(self.losses),
            "mean": self.mean,
            "value": self.value,
            "needed": NEEDED,
            "passes": self.passes,
        }


def steps_to_target(curves: Sequence[Mapping[int, float]], target_nats: float) -> StepsToTarget:
    """curves: of each run its validation losses by step. Raises StatsError where the runs share no step."""
    if not curves:
        raise StatsError("no runs; fewest steps needs at least one")
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    if not common:
        raise StatsError(f"{len(curves)} runs share no validation step: validate them all on one grid")
    found = [
        StepsToTarget(
            target_nats, step, checked((curve[step] for curve in curves), f"losses at step {step}", at_least=1)
        )
        for step in common
    ]
    return next((one for one in found if one.passes), found[-1])


def better(new: StepsToTarget, old: StepsToTarget) -> float:
    """(loss gained + 0.0045 per 100 steps saved) / sqrt(1/n + 1/n): at least 0.004 claims an improvement."""
    gained = old.mean - new.mean + LOSS_PER_100_STEPS * (old.step - new.step) / 100
    return gained / math.sqrt(1 / len(new.losses) + 1 / len(old.losses))
