"""Figures in a README, held against the logs: the headline of the 16 MB game, the lists of losses of the speedrun."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from underpar.referee.audit.outcome import Found, Note, listed
from underpar.referee.audit.printed import Printed, printed
from underpar.referee.audit.record import Record

_HEADLINE = re.compile(r"val_bpb[^0-9\n]{0,20}([0-2]\.\d{3,10})\b")
_LIST = re.compile(r"\[\s*(\d\.\d{2,6}(?:\s*,\s*\d\.\d{2,6}){2,200})\s*,?\s*\]")


def check_readme(record: Record) -> Iterator[Found]:
    """Notes only: a README is prose, and often of an earlier version."""
    if record.readme is None or not record.logs:
        return
    yield from _lists(record, record.readme) if record.is_speedrun else _headline(record, record.readme)


def _headline(record: Record, text: str) -> Iterator[Found]:
    """The first val_bpb of the README: stated in submission.json, printed by a log, or the mean of the logs."""
    match = _HEADLINE.search(text)
    stated = printed(match[1], "README") if match else None
    if stated is None or not record.values:
        return
    known: list[Printed | float] = [s.bpb for log in record.logs for b in log.blocks for s in b.finals if s.bpb]
    known += [sum(record.values) / len(record.values)]
    known += [record.claims.bpb] if record.claims and record.claims.bpb else []
    if not any(stated.agrees(figure) for figure in known):
        yield Note(
            "readme.score", f"the README's val_bpb {stated} is neither in submission.json nor in a log", "V23", "README"
        )


def _lists(record: Record, text: str) -> Iterator[Found]:
    """Lists of losses that are those of the logs, but for some."""
    for match in _LIST.finditer(text):
        stated = [number.strip() for number in match[1].split(",")]
        left_out, unseen = unmatched(stated, record.values)
        if len(stated) - len(unseen) < max(2, len(stated) // 2):
            continue  # of other runs, or of seconds
        if left_out:
            runs = listed([f"{value:.4f}" for value in left_out], 4, ", ")
            yield Note(
                "readme.runs",
                f"its list of {len(stated)} losses leaves out logs that end at {runs}",
                "V22",
                "README",
            )
        if unseen:
            runs = listed(unseen, 4, ", ")
            yield Note(
                "readme.runs", f"its list of {len(stated)} losses has {runs}, which no log prints", "V23", "README"
            )
        return


def unmatched(stated: Iterable[str], values: Iterable[float]) -> tuple[list[float], list[str]]:
    """Values that no stated number is, and numbers that no value is: each number takes the nearest value that it can be.

    A log may print more digits than a README, so that the two need not be rounded alike.
    """
    left, unseen = sorted(values), []
    for number in stated:
        figure = printed(number)
        nearest = min(left, key=lambda value: abs(value - float(number)), default=None)
        if figure is None or nearest is None or not figure.agrees(nearest):
            unseen.append(number)
        else:
            left.remove(nearest)
    return left, sorted(unseen)
