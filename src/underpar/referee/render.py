"""A verdict as text for a person."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from underpar.core.units import format_seconds
from underpar.referee.verdict import CheckResult, Verdict

WIDTH = 118
MARKS = {"O": "official", "C": "convention", "D": "disputed"}


def render(verdict: Verdict) -> str:
    """Every check with its statement, then the verdict and how to repeat it."""
    return "\n".join(_lines(verdict))


def _lines(verdict: Verdict) -> Iterator[str]:
    for check in verdict.checks:
        yield f"{_word(check):<12} {check.id:<20} {check.rule:<4} {MARKS[str(check.mark)]:<11} {check.title}"
        yield from textwrap.wrap(check.statement, WIDTH, initial_indent=" " * 13, subsequent_indent=" " * 13)
    yield ""
    score = verdict.measured.get("facts", {}).get("score")
    if score:
        yield (
            f"measured     {score['bpb']:.6f} bpb, {score['loss_nats']:.6f} nats/token, {score['tokens']:,} tokens, "
            f"{score['bytes']:,} bytes, {format_seconds(verdict.measured.get('wall_seconds', 0.0))} in all"
        )
    yield f"verdict      {str(verdict.ruling).upper()}"
    if verdict.decisive is not None or verdict.reason != "valid":
        yield from textwrap.wrap(verdict.reason, WIDTH, initial_indent=" " * 13, subsequent_indent=" " * 13)
    if verdict.subject.get("command"):
        yield f"repeat       {verdict.subject['command']}"


def _word(check: CheckResult) -> str:
    if check.passed is None:
        return "not checked"
    return "passed" if check.passed else "FAILED"
