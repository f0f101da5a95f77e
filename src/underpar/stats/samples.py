"""A sample of runs: mean, sample standard deviation, confidence interval."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from underpar.core.errors import UnderparError


class StatsError(UnderparError):
    """A test was asked for that these numbers cannot answer."""


@dataclass(frozen=True)
class Summary:
    """What n runs say about their mean. `sd` divides by n - 1; `low` and `high` bound the mean at `confidence`."""

    n: int
    mean: float
    sd: float
    low: float
    high: float
    minimum: float
    maximum: float
    confidence: float

    @property
    def standard_error(self) -> float:
        return self.sd / math.sqrt(self.n)

    def __str__(self) -> str:
        return (
            f"mean {self.mean:.6g}, sd {self.sd:.2g}, n {self.n}, "
            f"{self.confidence:.0%} interval {self.low:.6g} to {self.high:.6g}"
        )


def checked(values: Iterable[float], what: str, *, at_least: int = 2) -> tuple[float, ...]:
    """`values` as finite floats. Raises StatsError when there are too few or one is not finite."""
    numbers = tuple(float(v) for v in values)
    if len(numbers) < at_least:
        raise StatsError(
            f"{what}: {len(numbers)} value{'s' * (len(numbers) != 1)}, at least {at_least} needed; run more seeds"
        )
    for index, value in enumerate(numbers):
        if not math.isfinite(value):
            raise StatsError(
                f"{what}: value {index + 1} is {value}; only finite values can be tested, mend or rerun it"
            )
    return numbers


def checked_share(value: float, what: str) -> float:
    """`value` when it lies strictly between 0 and 1. Raises StatsError."""
    if not 0.0 < value < 1.0:
        raise StatsError(f"{what} = {value}: must lie between 0 and 1, both excluded")
    return value


def sample_sd(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1), exactly 0.0 for identical values. Raises StatsError for n < 2."""
    return statistics.stdev(checked(values, "sample sd"))


def summarise(values: Iterable[float], *, confidence: float = 0.95, what: str = "summary") -> Summary:
    """Mean, sample sd and the two-sided Student t interval of the mean. what: how an error names the sample.

    Raises StatsError for fewer than two values, a value that is not finite, or a confidence outside (0, 1).
    """
    from scipy.special import stdtrit

    numbers = checked(values, what)
    checked_share(confidence, "confidence")
    mean, sd, n = statistics.fmean(numbers), statistics.stdev(numbers), len(numbers)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half, min(numbers), max(numbers), confidence)
