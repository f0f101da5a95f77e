"""The audit of one record folder: read it, ask every question, give one word with its evidence."""

from __future__ import annotations

import re
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from underpar.referee.audit.canon import implied_bytes
from underpar.referee.audit.check_bytes import check_bytes
from underpar.referee.audit.check_clocks import check_clocks
from underpar.referee.audit.check_files import check_files
from underpar.referee.audit.check_own import check_own
from underpar.referee.audit.check_readme import check_readme
from underpar.referee.audit.check_scores import check_scores
from underpar.referee.audit.check_scripts import check_scripts
from underpar.referee.audit.check_seeds import check_seeds
from underpar.referee.audit.check_sizes import check_sizes
from underpar.referee.audit.check_source import check_source
from underpar.referee.audit.check_speedrun import check_speedrun
from underpar.referee.audit.check_stats import check_stats
from underpar.referee.audit.outcome import Check, Found, Note
from underpar.referee.audit.record import Record, read_record
from underpar.referee.audit.report import Interval, Report
from underpar.referee.audit.significance import RecordRule, against, control_rule, steps_rule, target_rule
from underpar.referee.audit.track import Track
from underpar.referee.verdict import CheckResult, Verdict
from underpar.stats import summarise

Question = Callable[[Record], Iterator[Found]]

QUESTIONS: tuple[Question, ...] = (
    check_files,
    check_scores,
    check_bytes,
    check_seeds,
    check_sizes,
    check_clocks,
    check_source,
    check_speedrun,
    check_own,
    check_stats,
    check_readme,
    check_scripts,
)


CHECK_IDS: tuple[str, ...] = tuple(
    sorted(
        check.id
        for question in QUESTIONS
        for check in vars(sys.modules[question.__module__]).values()
        if isinstance(check, Check)
    )
)
"""Ids of all checks; suspicions have ids of their own, scan.V01 to scan.V28."""


def audit_folder(root: Path, *, track: Track | None = None) -> Report:
    """Audit a record folder of either game. Nothing in it is executed or followed.

    Raises RecordError when `root` is no folder that can be listed.
    """
    record = read_record(root, track=track)
    found = [one for question in QUESTIONS for one in question(record)]
    checks = tuple(one for one in found if isinstance(one, CheckResult))
    notes = tuple(one for one in found if isinstance(one, Note))
    report = Report(
        folder=str(root),
        name=(record.claims.name if record.claims else "") or root.resolve().name,
        track=record.track.name,
        track_assumed=record.track.assumed,
        is_speedrun=record.is_speedrun,
        date=_date(record),
        author=record.claims.text("author", "github_id") if record.claims else "",
        verdict=Verdict(checks, subject={"folder": str(root), "command": _command(root, track)}),
        notes=notes,
        score=_interval(record),
        stated=record.claims.bpb.value if record.claims and record.claims.bpb else None,
        seconds=tuple(s.value for run in record.runs if (s := run.block.train_seconds)),
        steps=tuple(_steps(record)),
        counts_steps=record.track.counts_steps,
        largest_bytes=max((t.bytes for log in record.logs if (t := log.block.total_bytes)), default=None),
        bytes_per_token=_bytes_per_token(record),
        facts={"files": len(record.inventory.items), "logs": [log.name for log in record.logs]},
    )
    return replace(report, rules=tuple(_entry_rules(record))) if record.is_speedrun else report


def _entry_rules(record: Record) -> Iterator[RecordRule]:
    """The conditions of the speedrun that one folder can meet by itself."""
    if record.track.target_nats:
        yield from target_rule(record.values, record.track.target_nats, steps=record.track.counts_steps)
    if not record.track.counts_steps:
        yield from control_rule(
            [s.value for run in record.runs if (s := run.block.train_seconds)],
            [s.value for log in record.other_logs for part in log.finished if (s := part.train_seconds)],
        )


def _steps(record: Record) -> Iterator[int]:
    """Steps of the runs; on the optimiser track the step that the result stands on."""
    for run in record.runs:
        if record.track.counts_steps and run.score is not None and run.score.step is not None:
            yield run.score.step
        elif run.block.steps is not None:
            yield run.block.steps[0]


def _command(root: Path, track: Track | None) -> str:
    """The command line that repeats an audit."""
    return shlex.join(["underpar", "audit", str(root), *(["--track", track.name] if track else [])])


def compare(report: Report, predecessor: Report) -> Report:
    """The report with its significance against an earlier record of its track.

    Times of two speedrun folders are of two machines and are not compared; steps are.
    """
    new, old = report.score, predecessor.score
    if new is None or old is None or report.is_speedrun != predecessor.is_speedrun:
        return report
    if report.counts_steps and report.steps and predecessor.steps:
        rule = steps_rule(
            list(new.values.values()), max(report.steps), list(old.values.values()), max(predecessor.steps),
            predecessor.folder,
        )  # fmt: skip
        return replace(_told_against(report, predecessor), rules=(*report.rules, rule))
    if report.is_speedrun:
        return report
    found = against(_keyed(new), _keyed(old), bytes_per_token=report.bytes_per_token, predecessor=predecessor.folder)
    return replace(_told_against(report, predecessor), significance=found, rules=found.rules)


def _told_against(report: Report, predecessor: Report) -> Report:
    """The report with the command line that also repeats the comparison."""
    subject = dict(report.verdict.subject)
    subject["command"] = f"{subject['command']} --against {shlex.quote(predecessor.folder)}"
    return replace(report, verdict=replace(report.verdict, subject=subject))


def _keyed(score: Interval) -> dict[int, float]:
    """Seed -> value; runs without a seed get negative keys that match nobody's."""
    keys = {name: int(name) if name.isdecimal() else -1 - index for index, name in enumerate(score.values)}
    return {keys[name]: value for name, value in score.values.items()}


def _interval(record: Record) -> Interval | None:
    values: dict[str, float] = {}
    for run in record.runs:
        figure = run.score and (run.score.loss if record.is_speedrun else run.score.bpb)
        if figure:
            key = str(run.seed) if run.seed is not None else run.label
            values[key if key not in values else run.label] = float(figure)
    if not values:
        return None
    numbers = list(values.values())
    if len(numbers) == 1:
        return Interval(record.metric, values, numbers[0], None, None, None)
    summary = summarise(numbers)
    return Interval(record.metric, values, summary.mean, summary.sd, summary.low, summary.high)


def _bytes_per_token(record: Record) -> float | None:
    found = []
    for run in record.runs:
        tokens = run.block.tokens
        if run.score and run.score.loss and run.score.bpb and tokens and run.score.bpb.value:
            found.append(implied_bytes(tokens, run.score.loss.value, run.score.bpb.value) / tokens)
    return statistics.median(found) if found else None


def _date(record: Record) -> str:
    """YYYY-MM-DD from submission.json, else from the name of the folder."""
    stated = record.claims.date if record.claims else ""
    for text in (stated, record.root.resolve().name):
        match = re.search(r"(20\d\d)-?([01]\d)-?([0-3]\d)(?!\d)", text)
        if match:
            return "-".join(match.groups())
    return ""
