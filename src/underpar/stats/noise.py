"""The noise floor: how much runs of one recipe differ, pooled over recipes, and the smallest difference that shows."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from underpar.stats.samples import StatsError, checked, checked_share


@dataclass(frozen=True)
class NoiseFloor:
    """Run-to-run standard deviation pooled over groups of repeats, with its chi-square interval."""

    sd: float
    df: int
    low: float
    high: float
    confidence: float

    def smallest_difference(self, n: int, *, alpha: float = 0.01) -> float:
        """The difference of two means of n runs each that is just significant, one-sided, at this noise."""
        from scipy.stats import t

        if n < 1:
            raise StatsError(f"n = {n}: at least 1 run a side is needed")
        return float(t.ppf(1 - checked_share(alpha, "alpha"), self.df)) * self.sd * math.sqrt(2 / n)

    def __str__(self) -> str:
        return f"noise floor sd {self.sd:.2g} ({self.confidence:.0%} {self.low:.2g} to {self.high:.2g}, df {self.df})"


def noise_floor(groups: Iterable[Sequence[float]], *, confidence: float = 0.95) -> NoiseFloor:
    """Pool the variance of groups of repeated runs (one group a recipe, each with its own mean).

    Raises StatsError when no group has two runs, or when a value is not finite.
    """
    from scipy.stats import chi2

    checked_share(confidence, "confidence")
    squares, df = 0.0, 0
    for index, group in enumerate(groups):
        numbers = checked(group, f"noise floor, group {index + 1}", at_least=1)
        mean = math.fsum(numbers) / len(numbers)
        squares += math.fsum((v - mean) ** 2 for v in numbers)
        df += len(numbers) - 1
    if df == 0:
        raise StatsError("noise floor: no group has two runs; repeat at least one recipe with another seed")
    tail = (1 - confidence) / 2
    low, high = (math.sqrt(squares / float(chi2.ppf(q, df))) for q in (1 - tail, tail))
    return NoiseFloor(math.sqrt(squares / df), df, low, high, confidence)
