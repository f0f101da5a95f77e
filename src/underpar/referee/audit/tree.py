"""Many record folders: audited on every core, ranked, each tested against the record before it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from underpar.core.errors import RecordError, UnderparError
from underpar.referee.audit.find import find_records
from underpar.referee.audit.folder import audit_folder, compare
from underpar.referee.audit.outcome import Check
from underpar.referee.audit.report import Report
from underpar.referee.audit.track import Track
from underpar.referee.rules import PACKAGE
from underpar.referee.verdict import EXIT_CODES, Ruling, Verdict

Progress = Callable[[int, int], None]
"""Called with (folders done, folders in all)."""

_UNREAD = Check("package.readable", "the folder can be audited", PACKAGE, "V23")
_ORDER = (Ruling.INVALID, Ruling.DISPUTED, Ruling.UNVERIFIABLE, Ruling.VALID)


@dataclass(frozen=True)
class Board:
    """The reports on a tree, best score first within each track."""

    root: Path
    reports: tuple[Report, ...]

    @property
    def tracks(self) -> list[tuple[str, list[Report]]]:
        """(track, its reports)"""
        names = list(dict.fromkeys(report.track for report in self.reports))
        return [(name, [r for r in self.reports if r.track == name]) for name in names]

    @property
    def counts(self) -> dict[str, int]:
        """Ruling -> folders."""
        return {str(word): n for word in _ORDER if (n := sum(r.verdict.ruling is word for r in self.reports))}

    @property
    def exit_code(self) -> int:
        """That of the gravest ruling: 1 where any folder is invalid, else 3, else 4, else 0."""
        return next((EXIT_CODES[word] for word in _ORDER if str(word) in self.counts), 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "counts": self.counts,
            "folders": [report.to_json() for report in self.reports],
        }


def audit_tree(
    root: Path, *, track: Track | None = None, jobs: int = 1, on_progress: Progress = lambda done, all: None
) -> Board:
    """Audit every record folder below `root` on `jobs` processes, rank them, and test each against its predecessor.

    Raises RecordError when nothing below `root` looks like a record.
    """
    folders = find_records(root)
    if not folders:
        raise RecordError(
            f"{root}: no record folder (a submission.json, or logs with a README or a script); name a folder or a script"
        )
    found = dict(_audits(folders, track, min(jobs, len(folders)), on_progress))
    reports = _with_significance([found[folder] for folder in folders])
    return Board(root, tuple(sorted(reports, key=_rank)))


def _audits(
    folders: Sequence[Path], track: Track | None, jobs: int, on_progress: Progress
) -> Iterator[tuple[Path, Report]]:
    if jobs < 2:
        for done, folder in enumerate(folders):
            yield folder, _one(folder, track)
            on_progress(done + 1, len(folders))
        return
    largest_first = sorted(folders, key=_bytes_below, reverse=True)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting: dict[Future[Report], Path] = {pool.submit(_one, folder, track): folder for folder in largest_first}
        for done, future in enumerate(as_completed(waiting)):
            folder = waiting[future]
            try:
                yield folder, future.result()
            except BrokenProcessPool:
                yield folder, _unread(folder, "a process that audits ended early, probably for want of memory")
            on_progress(done + 1, len(folders))


def _one(folder: Path, track: Track | None) -> Report:
    """The audit of one folder; one that fails is a report like any other."""
    try:
        return audit_folder(folder, track=track)
    except UnderparError as problem:
        return _unread(folder, str(problem))


def _unread(folder: Path, why: str) -> Report:
    checks = (_UNREAD.lacks(f"a folder that can be audited ({why})", why),)
    verdict = Verdict(checks, subject={"folder": str(folder), "command": f"underpar audit {folder}"})
    return Report(str(folder), folder.name, "unknown", True, False, "", "", verdict)


def _bytes_below(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except OSError:
                continue
    return total


def _with_significance(reports: Sequence[Report]) -> list[Report]:
    """Each report against the best earlier one of its track that was not found invalid."""
    out: list[Report] = []
    best: dict[str, Report] = {}
    for report in sorted(reports, key=lambda r: (r.date or "9999", -_height(r), r.folder)):
        before = best.get(report.track)
        out.append(compare(report, before) if before else report)
        counts = report.score is not None and report.verdict.ruling is not Ruling.INVALID
        if counts and (before is None or _height(report) < _height(before)):
            best[report.track] = report
    return out


def _height(report: Report) -> float:
    """What a track ranks by, lower is better: the score, in the speedrun the mean of seconds or steps."""
    if report.is_speedrun:
        cost = report.cost[1]
        return sum(cost) / len(cost) if cost else float("inf")
    return report.score.mean if report.score else float("inf")


def _rank(report: Report) -> tuple[str, float, str]:
    return (report.track, _height(report), report.folder)
