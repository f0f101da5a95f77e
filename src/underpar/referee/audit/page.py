"""A board as one HTML file with filters. It loads nothing: style and script are inside, and the browser is told so."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path

from underpar.core.errors import RecordError
from underpar.core.whole import write_whole
from underpar.referee.audit.outcome import Note, class_of
from underpar.referee.audit.report import Report
from underpar.referee.audit.table import cells, header
from underpar.referee.audit.tree import Board
from underpar.referee.classes import CLASSES
from underpar.referee.verdict import CheckResult, Ruling

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_NUMBERS = {"rank", "score", "+-", "n", "stated", "against best before", "seconds", "steps", "mean loss"}


def write_page(board: Board, path: Path) -> Path:
    """Write the page; it appears complete or not at all. Raises RecordError where it cannot be written."""
    try:
        return write_whole(path, render_page(board))
    except OSError as problem:
        raise RecordError(f"cannot write {path}: {problem.strerror}; choose another --page") from None


def render_page(board: Board) -> str:
    """The text of the page."""
    title = f"Audit of {board.root.resolve().name}"
    counts = ", ".join(f"{n} {word}" for word, n in board.counts.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_asset("page.css")}</style></head>\n'
        f"<body><header><h1>{escape(title)}</h1><p>{len(board.reports)} folders: {escape(counts)}. Scores are computed again "
        f"from the logs; click a folder for what was measured.</p>{_filters(board)}</header>\n<main>"
        f"{''.join(_section(board, track, reports) for track, reports in board.tracks)}</main>\n"
        "<footer><p>+- is half the 95 % interval of the mean. G10, as written: 0.005 nats a token better than the best "
        "before at p &lt; 0.01. G11, as administered: Welch p &lt; 0.25. A dashed flag is a suspicion, which proves nothing."
        f"</p></footer>\n<script>{_asset('page.js')}</script></body></html>\n"
    )


def _filters(board: Board) -> str:
    words = "".join(
        f'<label><input type="checkbox" name="verdict" value="{w}" checked> <span class="{w}">{w}</span></label>'
        for w in Ruling
    )
    found = sorted({name for report in board.reports for name in report.classes})
    classes = "".join(f'<option value="{escape(n)}">{escape(n)}: {escape(_title(n))}</option>' for n in found)
    rules = "".join(f'<option value="{r}">{t}</option>' for r, t in (("G10", "as written"), ("G11", "as administered")))
    return (
        '<form id="filters"><input type="search" name="text" placeholder="name, author, folder" aria-label="Search">'
        f'{words}<select name="class" aria-label="Class"><option value="">any class</option>{classes}</select>'
        f'<select name="rule" aria-label="Record rule"><option value="">any record rule</option>{rules}</select>'
        '<button type="reset">Reset</button><output class="count" id="count"></output></form>'
    )


def _title(vclass: str) -> str:
    return CLASSES[vclass].title if vclass in CLASSES else ""


def _section(board: Board, track: str, reports: list[Report]) -> str:
    names = _folder_second(header(reports[0]))
    head = "".join(
        f'<th scope="col"{_number(name)}><button type="button">{escape(name)}</button></th>' for name in names
    )
    rows = "".join(
        _row(names, _folder_second(values), report)
        for values, report in zip(cells(board.root, reports), reports, strict=True)
    )
    return (
        f'<section><h2>{escape(track)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _folder_second(columns: tuple[str, ...]) -> tuple[str, ...]:
    """A narrow screen shows the first columns: the folder belongs there."""
    return (columns[0], columns[-1], *columns[1:-1])


def _row(names: tuple[str, ...], values: tuple[str, ...], report: Report) -> str:
    met = " ".join(rule.id for rule in report.rules if rule.passed)
    searched = f"{report.name} {report.author} {report.folder} {report.date}".lower()
    data = (
        f'data-verdict="{report.verdict.ruling}" data-text="{escape(searched)}" '
        f'data-flags="{escape(" ".join(report.classes))}" data-rules="{escape(met)}"'
    )
    return f"<tr {data}>{''.join(_cell(n, v, report) for n, v in zip(names, values, strict=True))}</tr>"


def _cell(name: str, value: str, report: Report) -> str:
    if name == "verdict":
        return f'<td><span class="verdict {value}">{escape(value)}</span></td>'
    if name == "flags":
        return f"<td>{_flags(report)}</td>"
    if name == "folder":
        by = f" · {escape(report.author)}" if report.author else ""
        return (
            f'<td class="folder" data-value="{escape(value)}"><b>{escape(report.name)}</b>{by}<br>{escape(value)}'
            f"{_details(report)}</td>"
        )
    return f"<td{_number(name)}>{escape(value)}</td>"


def _number(name: str) -> str:
    return ' class="number"' if name in _NUMBERS else ""


def _flags(report: Report) -> str:
    failed = {class_of(c) for c in report.failures}
    return "".join(
        f'<span class="flag {"fault" if name in failed else "hint"}" title="{escape(_title(name))}">{escape(name)}</span>'
        for name in report.classes
    )


def _details(report: Report) -> str:
    told = [_check(c) for c in report.verdict.checks if c.passed is False or c.missing]
    told += [_note(note) for note in report.notes]
    told += [f"<dt>record rule {escape(r.id)}</dt><dd>{escape(r.statement)}</dd>" for r in report.rules]
    if report.significance:
        told += [f"<dd>{escape(str(reading))}</dd>" for reading in report.significance.readings]
    told += [_check(c) for c in report.verdict.checks if c.passed]
    command = escape(str(report.verdict.subject.get("command", "")))
    return (
        f"<details><summary>{escape(report.verdict.reason[:160])}</summary>"
        f"<dl>{''.join(told)}</dl><p><code>{command}</code></p></details>"
    )


def _check(check: CheckResult) -> str:
    word = "FAILED" if check.passed is False else "held" if check.passed else "missing"
    name = f"{class_of(check)} {check.id}".strip() if check.passed is False else check.id
    see = check.evidence.get("see") if check.passed is False else None
    shown = f"<br><code>{escape(str(see))}</code>" if see else ""
    return (
        f'<dt><span class="{word}">{word}</span> {escape(name)}: {escape(check.title)} ({escape(check.rule)})</dt>'
        f"<dd>{escape(check.statement)}{shown}</dd>"
    )


def _note(note: Note) -> str:
    word = "suspicion" if note.is_suspicion else "note"
    place = f" {note.place}" if note.place else ""
    return f'<dt><span class="{word}">{word}</span> {escape(note.vclass)}{escape(place)}</dt><dd>{escape(note.statement)}</dd>'


def _asset(name: str) -> str:
    return (files("underpar.referee.audit") / "assets" / name).read_text(encoding="utf-8")
