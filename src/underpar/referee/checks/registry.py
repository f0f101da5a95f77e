"""A check: a function from a case to a finding, with its id, title, rule and the kinds of subject that it applies to.

It raises NotMeasured where a fact is absent; it is then reported as not checked. A new check is one more decorated function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from underpar.referee.case import Case, Kind, NotMeasured
from underpar.referee.measurement import plain
from underpar.referee.rules import Mark, Rule
from underpar.referee.verdict import CheckResult

PRECISION_TOLERANCE = 2e-3
"""Relative difference that another precision (bfloat16 against float32) can explain."""
PRINTED_TOLERANCE = 1e-6
"""Relative slack of sums that are printed in full."""
EVERY_KIND = tuple(Kind)


class Finding(NamedTuple):
    """What a check found. passed None: it ran and could not decide; `missing` then says what would."""

    passed: bool | None
    statement: str
    evidence: dict[str, Any]
    missing: str | None = None
    classes: tuple[str, ...] = ()
    """Classes of invalidity that look like this, the likeliest first."""
    mark: Mark | None = None
    """Where the evidence is weaker than the rule: the mark that the finding carries instead of the rule's."""


@dataclass(frozen=True)
class Check:
    """One registered check."""

    id: str
    title: str
    rule: Rule
    kinds: tuple[Kind, ...]
    examine: Callable[[Case], Finding]

    def run(self, case: Case) -> CheckResult:
        """The result on a case; never raises for what a submission contains."""
        blank = CheckResult(self.id, self.title, self.rule.id, self.rule.mark, None, "")
        try:
            found = self.examine(case)
        except NotMeasured as gap:
            return replace(blank, statement=f"not checked: {gap}", missing=str(gap) if gap.needed else None)
        return replace(
            blank,
            mark=found.mark or self.rule.mark,
            passed=found.passed,
            statement=found.statement,
            evidence=plain(found.evidence),
            missing=found.missing,
            classes=found.classes if found.passed is False else (),
        )


CHECKS: list[Check] = []
"""Every check, in the order in which a verdict reports them."""

Examine = Callable[[Case], Finding]


def check(id: str, title: str, rule: Rule, *kinds: Kind) -> Callable[[Examine], Examine]:
    """Register a function as a check of these kinds of subject, of every kind when none is named."""

    def register(examine: Examine) -> Examine:
        CHECKS.append(Check(id, title, rule, kinds or EVERY_KIND, examine))
        return examine

    return register


def run_checks(case: Case, checks: Iterable[Check] | None = None) -> tuple[CheckResult, ...]:
    """Every check that applies to a case."""
    return tuple(one.run(case) for one in (CHECKS if checks is None else checks) if case.kind in one.kinds)


def compare_exactly(case: Case, measured: dict[str, Any], what: str) -> Finding:
    """Every measured value that is also claimed must be equal to the claim."""
    claimed = {name: getattr(case.claim, name) for name in measured if getattr(case.claim, name) is not None}
    if not claimed:
        raise NotMeasured(f"{what} are not claimed", needed=False)
    evidence = {"measured": measured, "claimed": claimed}
    wrong = [name for name, value in claimed.items() if value != measured[name]]
    if wrong:
        name = wrong[0]
        return Finding(False, f"{name}: {show(claimed[name])} claimed, {show(measured[name])} measured", evidence)
    return Finding(
        True, ", ".join(f"{name} {show(value)}" for name, value in claimed.items()) + ", as claimed", evidence
    )


def show(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)[:16]
