"""An audit as text: like the comment of a reviewer who measured."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from underpar.referee.audit.files import printable
from underpar.referee.audit.outcome import Note, class_of
from underpar.referee.audit.report import Report
from underpar.referee.audit.significance import shown_p
from underpar.referee.render import MARKS, WIDTH
from underpar.referee.verdict import CheckResult, Ruling

_INDENT = " " * 13


def render(report: Report, *, everything: bool = False) -> str:
    """Findings first, then what held, then the verdict and how to repeat it. `everything` spells out what held."""
    return "\n".join(map(printable, _lines(report, everything)))


def _lines(report: Report, everything: bool) -> Iterator[str]:
    assumed = " (assumed; nothing says which)" if report.track_assumed else ""
    yield f"{report.name}  [{report.track}{assumed}]"
    if report.score:
        stated = f"; stated {report.stated:g}" if report.stated is not None else ""
        yield f"measured     {report.score}{stated}"
    yield ""
    failed = [c for c in report.verdict.checks if c.passed is False]
    lacking = [c for c in report.verdict.checks if c.missing]
    for check in (*failed, *lacking):
        yield from _check(check)
    for note in report.notes:
        yield from render_note(note)
    held = [c for c in report.verdict.checks if c.passed]
    if everything:
        for check in held:
            yield from _check(check)
    elif held:
        yield from textwrap.wrap(
            ", ".join(c.id for c in held), WIDTH, initial_indent="held         ", subsequent_indent=_INDENT
        )
    for rule in report.rules:
        yield from textwrap.wrap(
            rule.statement, WIDTH, initial_indent=f"{_rule_word(rule.passed):<13}", subsequent_indent=_INDENT
        )
    if report.significance:
        yield from (f"{_INDENT}{reading}" for reading in report.significance.readings)
        plain, matched = (shown_p(p) for p in (report.significance.p_plain, report.significance.p_paired))
        yield f"{_INDENT}no bar: Welch p {plain}, paired by seed p {matched}"
    yield ""
    yield f"verdict      {str(report.verdict.ruling).upper()}"
    if report.verdict.ruling is not Ruling.VALID:
        yield from textwrap.wrap(_reason(report), WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    else:
        yield f"{_INDENT}its figures hold together; whether the predictor is valid, 'underpar verify' can tell"
    yield f"repeat       {report.verdict.subject.get('command')}"


def _check(check: CheckResult) -> Iterator[str]:
    word = "FAILED" if check.passed is False else "missing" if check.missing else "held"
    name = f"{class_of(check)} {check.id}".strip()
    yield f"{word:<12} {name:<24} {check.rule:<4} {MARKS[str(check.mark)]:<11} {check.title}"
    yield from textwrap.wrap(check.statement, WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    if check.passed is False and check.evidence.get("see"):
        yield f"{_INDENT}$ {check.evidence['see']}"


def render_note(note: Note) -> Iterator[str]:
    """A note or a suspicion with its place."""
    word = "suspicion" if note.is_suspicion else "note"
    place = f"{note.place}: " if note.place else ""
    yield from textwrap.wrap(
        f"{note.vclass + ' ' if note.vclass else ''}{place}{note.statement}", WIDTH,
        initial_indent=f"{word:<13}", subsequent_indent=_INDENT,
    )  # fmt: skip


def _rule_word(passed: bool | None) -> str:
    return "open" if passed is None else "rule met" if passed else "rule unmet"


def _reason(report: Report) -> str:
    """The ruling in one line, with the class of what decided it."""
    one = report.verdict.decisive
    if one is None:
        return report.verdict.reason
    if report.verdict.ruling is Ruling.UNVERIFIABLE:
        return f"unverifiable(missing: {one.missing})"
    return f"{report.verdict.ruling}({class_of(one)}, rule {one.rule} [{one.mark}], {one.id}): {one.statement}"
