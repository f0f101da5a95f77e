"""Student's t in the three forms the field uses: against a threshold, between two sets of runs, between matched runs.

Lower is better for losses, so `alternative="less"` claims an improvement; the statistic keeps the sign of the
difference (published tables often print its absolute value).
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from underpar.stats.samples import StatsError, checked, checked_share

Alternative = Literal["less", "greater", "two-sided"]


@dataclass(frozen=True)
class TTest:
    """One t-test, decided at `alpha`.

    `difference` is the observed mean minus what the null hypothesis says; `low` and `high` bound the true mean
    difference at confidence 1 - alpha, two-sided, before any shift is taken off. `statistic`, `df` and `p_value` are
    NaN when there is no spread to test against, and then nothing is significant: identical results are a sign of a
    repeated run.
    """

    name: str
    alternative: Alternative
    n: tuple[int, ...]
    difference: float
    low: float
    high: float
    statistic: float
    df: float
    p_value: float
    alpha: float
    null: str

    @property
    def significant(self) -> bool:
        """Whether p < alpha. False where the test is undefined."""
        return self.p_value < self.alpha

    @property
    def is_defined(self) -> bool:
        """Whether there was spread to test against."""
        return not math.isnan(self.p_value)

    @property
    def outcome(self) -> str:
        """The decision in words: 'significant at 0.01', 'not significant at 0.01'."""
        if not self.is_defined:
            return "not significant: identical values leave no spread to test against"
        return f"{'significant' if self.significant else 'not significant'} at {self.alpha:g}"

    def __str__(self) -> str:
        sides = "two-sided" if self.alternative == "two-sided" else "one-sided"
        if not self.is_defined:
            return f"{self.name}, {self.null}: {self.outcome}"
        df = f"{self.df:.0f}" if self.df == round(self.df) else f"{self.df:.2f}"
        return (
            f"{self.name}, {self.null}: t = {self.statistic:.2f}, df {df}, "
            f"{sides} p {format_p(self.p_value)}, {self.outcome}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes null."""
        numbers = {k: getattr(self, k) for k in ("difference", "low", "high", "statistic", "df", "p_value")}
        return {
            "test": self.name,
            "alternative": self.alternative,
            "null": self.null,
            "n": list(self.n),
            **{k: v if math.isfinite(v) else None for k, v in numbers.items()},
            "alpha": self.alpha,
            "significant": self.significant,
        }


def format_p(p_value: float) -> str:
    """'= 0.0060', '= 1.1e-05': never a bare zero."""
    if math.isnan(p_value):
        return "undefined"
    return f"= {p_value:.4f}" if p_value >= 1e-4 else f"= {p_value:.1e}"


def one_sample(
    values: Iterable[float], threshold: float, *, alternative: Alternative = "less", alpha: float = 0.01
) -> TTest:
    """Whether the mean of `values` lies below (above, away from) a fixed `threshold`.

    The threshold is taken as exact: when it is itself a measured mean, `welch` is the honest form.

    Raises StatsError for n < 2, values that are not finite, alpha outside (0, 1), or an unknown alternative.
    """
    numbers = checked(values, "one-sample test")
    n, mean = len(numbers), statistics.fmean(numbers)
    error = statistics.stdev(numbers) / math.sqrt(n)
    sign = {"less": "<", "greater": ">", "two-sided": "!="}.get(alternative, "?")
    null = f"mean {mean:.8g} {sign} {threshold:.8g}"
    return _decide("one-sample t-test", alternative, (n,), mean - threshold, 0.0, error, n - 1, alpha, null, numbers)


def paired(
    first: Sequence[float],
    second: Sequence[float],
    *,
    shift: float = 0.0,
    alternative: Alternative = "less",
    alpha: float = 0.01,
) -> TTest:
    """Whether `first` minus `second`, pair by pair, lies below (above, away from) `shift`.

    Pairs must be matched by something that makes them noisy together (a node and a time slot); equal seeds rarely do.

    Raises StatsError for sequences of different length, n < 2, or values that are not finite.
    """
    a, b = checked(first, "paired test, first set"), checked(second, "paired test, second set")
    if len(a) != len(b):
        raise StatsError(
            f"paired test: {len(a)} against {len(b)} values; pairs need equal counts, use welch for unpaired runs"
        )
    differences = [x - y for x, y in zip(a, b, strict=True)]
    n, mean = len(a), statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    null = _null(mean, shift, alternative)
    return _decide("paired t-test", alternative, (n,), mean, shift, error, n - 1, alpha, null, (*a, *b))


def welch(
    first: Iterable[float],
    second: Iterable[float],
    *,
    shift: float = 0.0,
    alternative: Alternative = "less",
    alpha: float = 0.01,
) -> TTest:
    """Whether mean(first) - mean(second) lies below (above, away from) `shift`, variances free.

    `shift=-0.005` asks for an improvement of more than 0.005.

    Raises StatsError for n < 2 on either side or values that are not finite.
    """
    a, b = checked(first, "Welch test, first set"), checked(second, "Welch test, second set")
    va, vb = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    error = math.sqrt(va + vb)
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)) if va + vb > 0 else math.nan
    difference = statistics.fmean(a) - statistics.fmean(b)
    null = _null(difference, shift, alternative)
    return _decide("Welch t-test", alternative, (len(a), len(b)), difference, shift, error, df, alpha, null, (*a, *b))


def _null(difference: float, shift: float, alternative: str) -> str:
    sign = {"less": "<", "greater": ">", "two-sided": "!="}.get(alternative, "?")
    return f"difference {difference:+.6g} {sign} {shift:.6g}"


def _decide(
    name: str,
    alternative: Alternative,
    n: tuple[int, ...],
    difference: float,
    shift: float,
    error: float,
    df: float,
    alpha: float,
    null: str,
    values: Sequence[float],
) -> TTest:
    """Statistic, p and interval from a difference and its standard error."""
    from scipy.special import stdtr, stdtrit  # a fifth of the import time of scipy.stats, the same functions

    checked_share(alpha, "alpha")
    if alternative not in ("less", "greater", "two-sided"):
        raise StatsError(f"alternative = {alternative!r}: must be 'less', 'greater' or 'two-sided'")
    beyond = difference - shift
    # rounding leaves about one unit in the last place where the true spread is zero
    if error <= 4e-16 * max(abs(v) for v in values):
        nan = math.nan
        return TTest(name, alternative, n, beyond, difference, difference, nan, nan, nan, alpha, null)
    statistic = beyond / error
    below, above, beyond_both = (stdtr(df, x) for x in (statistic, -statistic, -abs(statistic)))
    tails = {"less": below, "greater": above, "two-sided": 2 * beyond_both}
    half = float(stdtrit(df, 1 - alpha / 2)) * error
    p_value = float(tails[alternative])
    return TTest(
        name, alternative, n, beyond, difference - half, difference + half, statistic, df, p_value, alpha, null
    )
