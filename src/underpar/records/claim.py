"""What a record claims, and whether its runs support it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from underpar.core.errors import RecordError
from underpar.records.run import Run
from underpar.stats import TTest, format_p, one_sample

Metric = Literal["val_bpb", "val_loss"]


@dataclass(frozen=True)
class Claim:
    """The mean of `metric` lies below `threshold`, one-sided, at `alpha`. `reference`: where the threshold is from."""

    threshold: float
    alpha: float = 0.01
    metric: Metric = "val_bpb"
    reference: str = ""

    def __post_init__(self) -> None:
        if self.metric not in ("val_bpb", "val_loss"):
            raise RecordError(f"metric = {self.metric!r}: must be val_bpb or val_loss")
        if not 0 < self.alpha < 1:
            raise RecordError(f"alpha = {self.alpha}: must lie between 0 and 1; the field uses 0.01")


@dataclass(frozen=True)
class Outcome:
    """A claim beside its test; `test` is None for a single run, which cannot be tested."""

    claim: Claim
    test: TTest | None

    @property
    def significant(self) -> bool:
        return self.test is not None and self.test.significant

    @property
    def verdict(self) -> str:
        """'significant' or 'not significant', never anything between."""
        return "significant" if self.significant else "not significant"

    def sentence(self) -> str:
        """The claim with its evidence, in one sentence."""
        claim = self.claim
        below = f"mean {claim.metric} below {claim.threshold:.8g}"
        below += f" ({claim.reference})" if claim.reference else ""
        if self.test is None:
            return f"not significant: {below} cannot be tested with one run; run more seeds."
        if not self.test.is_defined:
            return f"not significant: {below} cannot be tested, all runs have the same value."
        evidence = f"one-sided one-sample t-test, t = {-self.test.statistic:.2f}, df {self.test.df:.0f}"
        return f"{self.verdict}: {below}, {evidence}, p {format_p(self.test.p_value)} at alpha = {claim.alpha:g}."


def metric_values(runs: Sequence[Run], metric: Metric) -> list[float]:
    """The scored values of the runs: bits per byte, or loss in nats per token."""
    return [float(run.require("score.json")["bpb" if metric == "val_bpb" else "loss_nats"]) for run in runs]


def by_seed(runs: Sequence[Run], metric: Metric) -> dict[int, float]:
    """Seed -> value. Raises RecordError when a seed occurs twice: a repeat is not a new sample."""
    table: dict[int, float] = {}
    for run, value in zip(runs, metric_values(runs, metric), strict=True):
        if run.seed in table:
            raise RecordError(f"{run.folder}: seed {run.seed} occurs twice; a repeat is not a new sample, leave it out")
        table[run.seed] = value
    return table


def decide(claim: Claim, runs: Sequence[Run]) -> Outcome:
    """Test `claim` on `runs`. A single run gives an outcome without a test."""
    values = metric_values(runs, claim.metric)
    test = one_sample(values, claim.threshold, alpha=claim.alpha) if len(values) > 1 else None
    return Outcome(claim, test)
