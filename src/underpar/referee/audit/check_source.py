"""The script that a log prints, held against the script that is shipped."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import zip_longest

from underpar.referee.audit.facts import LogFacts
from underpar.referee.audit.outcome import Check, Found, listed
from underpar.referee.audit.record import Record
from underpar.referee.audit.rules import COMPLETE_LOGS, FIGURES
from underpar.referee.audit.source import Source
from underpar.referee.audit.syntax import NoPython, parse

EMBEDDED = Check("source.embedded", "the logs print the script that is shipped", FIGURES, "V23")
SAME = Check("source.same", "all runs ran one script", FIGURES, "V23")


def check_source(record: Record) -> Iterator[Found]:
    """Embedded sources against each other and against the shipped script."""
    printed = [(log, log.source) for log in record.logs if log.source]
    if not printed:
        return
    yield _same(record, printed)
    source = record.main_source
    if source is not None and source.text and not record.is_speedrun:
        yield from _shipped(source, printed)


def _same(record: Record, printed: list[tuple[LogFacts, str]]) -> Found:
    first_log, first = printed[0]
    other = next(((log, text) for log, text in printed[1:] if not _same_code(first, text)), None)
    rule = COMPLETE_LOGS if record.is_speedrun else FIGURES
    if other is None:
        return SAME.passed(f"{len(printed)} logs print the same source", logs=len(printed))
    lines = _changed(first, other[1])
    said = f"{first_log.name} and {other[0].name} print different source: {listed(lines, 2, ' | ')}"
    if len(lines) <= 2 and record.is_speedrun:
        return SAME.passed(f"{said} (a setting of the run)")
    return SAME.failed(said, rule=rule, mark=FIGURES.mark, lines=lines[:20])


def _shipped(source: Source, printed: list[tuple[LogFacts, str]]) -> Iterator[Found]:
    log, text = printed[0]
    shipped = source.shipped.decode("utf-8", "replace")
    if any(_same_code(text, own) for own in (source.text, shipped)):
        yield EMBEDDED.passed(f"{source.item.name} is what {log.name} prints, comments and layout aside")
        return
    lines = _changed(text, source.text)
    yield EMBEDDED.failed(
        f"{log.name} prints another script than {source.item.name}: {len(lines)} lines differ, as in {listed(lines, 2, ' | ')}",
        lines=lines[:20],
    )


def _same_code(a: str, b: str) -> bool:
    """Equal as text but for white space at line ends, else equal as syntax trees."""
    if [line.rstrip() for line in a.strip().splitlines()] == [line.rstrip() for line in b.strip().splitlines()]:
        return True
    try:
        return ast.dump(parse(a)) == ast.dump(parse(b))
    except (NoPython, RecursionError, MemoryError):
        return False


def _changed(a: str, b: str) -> list[str]:
    """Lines that only one of the two has, shortened, in turn; '-' for `a`, '+' for `b`."""
    left = [line.strip() for line in a.splitlines() if line.strip()]
    right = [line.strip() for line in b.splitlines() if line.strip()]
    here, there = set(left), set(right)
    gone = [f"-{line[:70]}" for line in left if line not in there]
    new = [f"+{line[:70]}" for line in right if line not in here]
    return [line for pair in zip_longest(gone, new) for line in pair if line] or ["only the order of lines"]
