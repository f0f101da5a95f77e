"""A board as text: one line a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from underpar.referee.audit.files import printable
from underpar.referee.audit.outcome import class_of
from underpar.referee.audit.report import Report
from underpar.referee.audit.tree import Board
from underpar.stats import summarise

_WORDS = {True: "yes", False: "no", None: "?"}
HEADER = ("rank", "verdict", "score", "+-", "n", "stated", "against best before", "G10", "G11", "flags", "folder")
SPEEDRUN_HEADER = ("rank", "verdict", "cost", "+-", "n", "mean loss", "p < 0.01", "mean met", "flags", "folder")


def render_board(board: Board) -> str:
    """Tables by track, then what the columns mean."""
    return "\n".join(map(printable, _lines(board)))


def _lines(board: Board) -> Iterator[str]:
    for track, reports in board.tracks:
        yield f"{track}: {len(reports)} folders"
        yield from _table([header(reports[0]), *cells(board.root, reports)])
        yield ""
    counts = ", ".join(f"{n} {word}" for word, n in board.counts.items())
    yield f"{len(board.reports)} folders: {counts}"
    yield "+- is half the 95 % interval of the mean. Flags: classes of failed checks, in brackets of mere suspicions."
    yield "G10, as written: 0.005 nats a token better than the best before at p < 0.01. G11, as administered: Welch p < 0.25."
    yield f"one folder in full: underpar audit {board.reports[0].folder}"


def header(report: Report) -> tuple[str, ...]:
    """The columns of a report's track."""
    if report.is_speedrun:
        return tuple(report.cost[0] if name == "cost" else name for name in SPEEDRUN_HEADER)
    return HEADER


def cells(root: Path, reports: Sequence[Report]) -> list[tuple[str, ...]]:
    """The columns of each report, in the order of the reports."""
    return [_row(root, index + 1, report) for index, report in enumerate(reports)]


def _row(root: Path, rank: int, report: Report) -> tuple[str, ...]:
    folder = Path(report.folder)
    name = str(folder.relative_to(root)) if folder.is_relative_to(root) and folder != root else report.folder
    word = str(report.verdict.ruling)
    rules = {rule.id: _WORDS[rule.passed] for rule in report.rules}
    if report.is_speedrun:
        target = rules.get("S2", rules.get("T2", "-"))
        return (str(rank), word, *_cost(report), target, rules.get("S2 mean", "-"), flags(report), name)
    score = report.score
    half = (score.high - score.low) / 2 if score and score.high is not None and score.low is not None else None
    gain = report.significance
    return (
        str(rank),
        word,
        f"{score.mean:.5f}" if score else "-",
        f"{half:.5f}" if half is not None else "-",
        str(score.n) if score else "0",
        f"{report.stated:.5f}" if report.stated is not None else "-",
        f"{gain.difference:+.5f}" if gain else "-",
        rules.get("G10", "-"),
        rules.get("G11", "-"),
        flags(report),
        name,
    )


def _cost(report: Report) -> tuple[str, str, str, str]:
    """Mean seconds or steps, half their interval, runs, mean loss."""
    cost, score = report.cost[1], report.score
    mean = f"{sum(cost) / len(cost):,.3f}".removesuffix(".000") if cost else "-"
    spread = "-"
    if len(cost) > 1:
        summary = summarise(cost)
        spread = f"{(summary.high - summary.low) / 2:.3f}"
    return mean, spread, str(score.n) if score else "0", f"{score.mean:.5f}" if score else "-"


def flags(report: Report) -> str:
    """Classes of failed checks; those of mere suspicions in brackets."""
    failed = list(dict.fromkeys(class_of(c) for c in report.failures))
    others = [name for name in report.classes if name not in failed]
    return " ".join([*failed, *(f"({name})" for name in others)])


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
