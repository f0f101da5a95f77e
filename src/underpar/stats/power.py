"""How many seeds: the margin a sample must have, the power of a plan, the seeds an effect needs."""

import math

from underpar.stats.samples import StatsError, checked_share


def margin_in_sds(n: int, *, alpha: float = 0.01) -> float:
    """How far beyond the bar the mean of n runs must lie to pass, in sample standard deviations.

    t(1 - alpha, n - 1) / sqrt(n): 4.02 for three runs at 0.01, 1.68 for five, 0.89 for ten.

    Raises StatsError for n < 2.
    """
    from scipy.stats import t

    _check_n(n)
    return float(t.ppf(1 - checked_share(alpha, "alpha"), n - 1)) / math.sqrt(n)


def highest_passing_mean(threshold: float, sd: float, n: int, *, alpha: float = 0.01) -> float:
    """The largest mean of n runs with sample sd `sd` that passes the one-sided test below `threshold`."""
    return threshold - margin_in_sds(n, alpha=alpha) * _check_sd(sd)


def power_one_sample(effect: float, sd: float, n: int, *, alpha: float = 0.01) -> float:
    """The chance that n runs, truly `effect` beyond the bar with spread `sd`, pass (one-sided, noncentral t)."""
    from scipy.stats import t

    _check_n(n)
    critical = float(t.ppf(1 - checked_share(alpha, "alpha"), n - 1))
    return _beyond(critical, n - 1, effect / _check_sd(sd) * math.sqrt(n))


def power_welch(
    effect: float, sd_first: float, sd_second: float, n_first: int, n_second: int, *, alpha: float = 0.01
) -> float:
    """The chance that Welch's one-sided test finds a true difference `effect` (noncentral t at the expected df)."""
    from scipy.stats import t

    _check_n(n_first)
    _check_n(n_second)
    va, vb = _check_sd(sd_first) ** 2 / n_first, _check_sd(sd_second) ** 2 / n_second
    df = (va + vb) ** 2 / (va**2 / (n_first - 1) + vb**2 / (n_second - 1))
    critical = float(t.ppf(1 - checked_share(alpha, "alpha"), df))
    return _beyond(critical, df, effect / math.sqrt(va + vb))


def seeds_needed(effect: float, sd: float, *, alpha: float = 0.01, power: float = 0.8, at_most: int = 1000) -> int:
    """The fewest runs with which an effect of that size beyond the bar passes with the given power.

    Raises StatsError when the effect is not positive or more than `at_most` runs would be needed.
    """
    checked_share(power, "power")
    if effect <= 0:
        raise StatsError(f"effect = {effect:g}: must be above 0; no number of seeds shows a gain that is not there")
    if power_one_sample(effect, sd, at_most, alpha=alpha) < power:
        raise StatsError(
            f"an effect of {effect:g} with sd {sd:g} needs more than {at_most} runs; reduce the noise or aim for more"
        )
    low, high = 1, at_most  # power grows with n: bisect
    while high - low > 1:
        middle = (low + high) // 2
        if power_one_sample(effect, sd, middle, alpha=alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def _beyond(critical: float, df: float, noncentrality: float) -> float:
    """P(T > critical) for a noncentral t, as 1 - E[Phi(critical * sqrt(V / df) - noncentrality)] with V chi-square.

    Integrated over the quantiles of V: the library's series fails for large noncentrality, and this is smooth.
    """
    import numpy as np
    from scipy.stats import chi2, norm

    nodes, weights = np.polynomial.legendre.leggauss(200)
    share = 0.5 * (nodes + 1)
    scale = np.sqrt(chi2.ppf(share, df) / df)
    return float(np.clip(0.5 * np.sum(weights * norm.sf(critical * scale - noncentrality)), 0.0, 1.0))


def _check_n(n: int) -> None:
    if n < 2:
        raise StatsError(f"n = {n}: at least 2 runs are needed for a spread")


def _check_sd(sd: float) -> float:
    if not (sd > 0 and math.isfinite(sd)):
        raise StatsError(f"sd = {sd:g}: must be positive and finite; measure it from repeated runs")
    return sd
