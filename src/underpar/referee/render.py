"""A verdict as text for a person, in the words of a reviewer: what passed and how far that goes, what failed, the verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from underpar.core.units import format_seconds
from underpar.referee.classes import CLASSES
from underpar.referee.verdict import CheckResult, Verdict

WIDTH = 118
INDENT = 13
MARKS = {"O": "official", "C": "convention", "D": "disputed"}


def render(verdict: Verdict) -> str:
    """Every check with its statement, what failed last, then the verdict, its readings and how to repeat it."""
    return "\n".join(_lines(verdict))


def _lines(verdict: Verdict) -> Iterator[str]:
    idle = [c for c in verdict.checks if c.passed is None and c.missing is None and c.statement.startswith(NOT_CHECKED)]
    told = [c for c in verdict.checks if c not in idle]
    for check in sorted(told, key=_urgency):
        yield f"{_word(check):<12} {check.id:<22} {check.rule:<4} {MARKS[str(check.mark)]:<11} {check.title}"
        yield from _wrapped(check.statement.removeprefix(NOT_CHECKED))
        if check.classes:
            yield from _wrapped("looks like " + "; ".join(f"{id} ({CLASSES[id].title})" for id in check.classes[:3]))
    yield from _idle(idle)
    yield ""
    score = verdict.measured.get("facts", {}).get("score")
    if score:
        bpb = f"{score['bpb']:.6f} bpb, " if score.get("bpb") is not None else ""
        of = f"{score['bytes']:,} bytes, " if score.get("bytes") is not None else ""
        spent = format_seconds(verdict.measured.get("wall_seconds", 0.0))
        yield f"measured     {bpb}{score['loss_nats']:.6f} nats/token, {score['tokens']:,} tokens, {of}{spent} in all"
    word = str(verdict.ruling)
    yield f"verdict      {word.upper()}{verdict.headline.removeprefix(word)}"
    yield from _readings(verdict)
    if verdict.subject.get("command"):
        yield f"repeat       {verdict.subject['command']}"


NOT_CHECKED = "not checked: "


def _idle(checks: Sequence[CheckResult]) -> Iterator[str]:
    """Checks that nothing here calls for, by the reason."""
    reasons: dict[str, list[str]] = {}
    for check in checks:
        reasons.setdefault(check.statement.removeprefix(NOT_CHECKED), []).append(check.id)
    for reason, ids in reasons.items():
        lines = textwrap.wrap(f"{', '.join(ids)}: {reason}", WIDTH, break_long_words=False, break_on_hyphens=False)
        yield f"{'not checked':<{INDENT}}{lines[0]}"
        yield from (" " * INDENT + line for line in lines[1:])


def _readings(verdict: Verdict) -> Iterator[str]:
    """What the verdict and the score are if the contested findings are decided one way or the other."""
    for number, one in enumerate(verdict.readings, 1):
        score = "" if one["bpb"] is None else f", {one['bpb']:.6f} bpb"
        yield f"reading {number}    {one['reading']}: {one['verdict']}{score}"
    if verdict.readings:
        yield f"contested    {verdict.readings[0]['contested']}"


def _urgency(check: CheckResult) -> int:
    """Passed first, failed last: the end of the output is what a terminal shows."""
    return {True: 0, None: 1, False: 2}[check.passed]


def _wrapped(text: str) -> list[str]:
    pad = " " * INDENT
    return textwrap.wrap(text, WIDTH, initial_indent=pad, subsequent_indent=pad, break_long_words=False)


def _word(check: CheckResult) -> str:
    if check.passed is None:
        return "NOT MEASURED" if check.missing else "not judged"
    return "passed" if check.passed else "FAILED"
