"""Two sets of runs, compared: Welch always, paired where the seeds match, and a sentence that says what follows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from underpar.stats.samples import Summary, summarise
from underpar.stats.ttest import TTest, paired, welch


@dataclass(frozen=True)
class RunComparison:
    """Runs `first` against runs `second` on one metric where lower is better."""

    metric: str
    first: Summary
    second: Summary
    welch: TTest
    paired: TTest | None
    """None when the two sets do not have the same seeds."""

    @property
    def difference(self) -> float:
        """mean(first) - mean(second): negative is an improvement."""
        return self.first.mean - self.second.mean

    def sentence(self, first: str = "the first set", second: str = "the second set") -> str:
        """The verdict in one sentence. Welch decides: equal seeds do not make runs noisy together."""
        if self.difference == 0:
            return f"{first} and {second} have the same mean {self.metric}: {self.welch.outcome} (Welch)."
        size = f"{abs(self.difference):.6f} {self.metric}"
        direction = "lower" if self.difference < 0 else "higher"
        where = f"{1 - self.welch.alpha:.0%} interval {self.welch.low:+.6f} to {self.welch.high:+.6f}"
        return f"{first} is {size} {direction} than {second} ({where}): {self.welch.outcome} (Welch)."

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "first": {"n": self.first.n, "mean": self.first.mean, "sd": self.first.sd},
            "second": {"n": self.second.n, "mean": self.second.mean, "sd": self.second.sd},
            "difference": self.difference,
            "welch": self.welch.to_json(),
            "paired": self.paired.to_json() if self.paired else None,
            "sentence": self.sentence(),
        }


def compare_runs(
    first: Mapping[int, float],
    second: Mapping[int, float],
    *,
    metric: str = "val_bpb",
    shift: float = 0.0,
    alpha: float = 0.01,
) -> RunComparison:
    """Test whether `first` (seed -> value) lies more than -shift below `second`, one-sided.

    Raises StatsError for fewer than two runs on either side.
    """
    summaries = summarise(first.values(), what="first set"), summarise(second.values(), what="second set")
    matched: TTest | None = None
    if first.keys() == second.keys():
        seeds = sorted(first)
        matched = paired([first[s] for s in seeds], [second[s] for s in seeds], shift=shift, alpha=alpha)
    return RunComparison(
        metric=metric,
        first=summaries[0],
        second=summaries[1],
        welch=welch(first.values(), second.values(), shift=shift, alpha=alpha),
        paired=matched,
    )
