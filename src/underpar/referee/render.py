"""A verdict as text for a person: what failed first, in the words of a reviewer."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from underpar.core.units import format_seconds
from underpar.referee.classes import CLASSES
from underpar.referee.rules import Mark
from underpar.referee.verdict import CheckResult, Ruling, Verdict

WIDTH = 118
MARKS = {"O": "official", "C": "convention", "D": "disputed"}


def render(verdict: Verdict) -> str:
    """Every check with its statement, then the verdict, its readings and how to repeat it."""
    return "\n".join(_lines(verdict))


def _lines(verdict: Verdict) -> Iterator[str]:
    for check in verdict.checks:
        yield f"{_word(check):<12} {check.id:<22} {check.rule:<4} {MARKS[str(check.mark)]:<11} {check.title}"
        yield from _wrapped(check.statement)
        if check.classes:
            yield from _wrapped("looks like " + "; ".join(f"{id} ({CLASSES[id].title})" for id in check.classes[:3]))
    yield ""
    score = verdict.measured.get("facts", {}).get("score")
    if score:
        bpb = f"{score['bpb']:.6f} bpb, " if score.get("bpb") is not None else ""
        of = f"{score['bytes']:,} bytes, " if score.get("bytes") is not None else ""
        spent = format_seconds(verdict.measured.get("wall_seconds", 0.0))
        yield f"measured     {bpb}{score['loss_nats']:.6f} nats/token, {score['tokens']:,} tokens, {of}{spent} in all"
    yield f"verdict      {str(verdict.ruling).upper()}"
    if verdict.decisive is not None or verdict.reason != "valid":
        yield from _wrapped(verdict.reason)
    yield from _readings(verdict)
    if verdict.subject.get("command"):
        yield f"repeat       {verdict.subject['command']}"


def _readings(verdict: Verdict) -> Iterator[str]:
    """What the verdict would be if the contested findings were decided one way or the other."""
    contested = [c for c in verdict.checks if c.passed is False and c.mark is not Mark.OFFICIAL]
    if not contested or verdict.ruling is Ruling.INVALID:
        return
    names = ", ".join(dict.fromkeys(f"{c.rule} ({c.id})" for c in contested))
    lenient = Verdict(tuple(c for c in verdict.checks if c not in contested)).ruling
    yield from _wrapped(f"contested: {names}. Read strictly the result is invalid, read leniently it is {lenient}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * 13, subsequent_indent=" " * 13, break_long_words=False)


def _word(check: CheckResult) -> str:
    if check.passed is None:
        return "not checked"
    return "passed" if check.passed else "FAILED"
