"""Is each run a run of its own? Seeds in logs, in names and in claims; logs that are copies."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from underpar.referee.audit.facts import Block
from underpar.referee.audit.outcome import Check, Found, Note, listed, show_line
from underpar.referee.audit.record import Record
from underpar.referee.audit.rules import FIGURES
from underpar.referee.audit.runs import named_seed
from underpar.referee.rules import SIGNIFICANT

DISTINCT = Check("seeds.distinct", "every run shown is another run", SIGNIFICANT, "V22")
PRINTED = Check("seeds.printed", "the seed a log prints is the one it stands for", FIGURES, "V22")

T = TypeVar("T")


def check_seeds(record: Record) -> Iterator[Found]:
    """Copies, repeats and labels."""
    if not record.logs:
        yield DISTINCT.skipped("there is no log")
        return
    yield _distinct(record)
    if not record.is_speedrun:
        yield _printed(record)
    yield from _left_over(record)


def _distinct(record: Record) -> Found:
    logs = [*record.logs, *(log for log in record.other_logs if log.name.count("/") == 0)]
    same = _groups(logs, lambda log: log.sha256)
    copies = [group for group in same if len({named_seed(log) for log in group} - {None}) > 1]
    if copies:
        names = ", ".join(log.name for log in copies[0])
        return DISTINCT.failed(
            f"{names} are byte for byte one log: one run is shown as {len(copies[0])}",
            see=shlex.join(["sha256sum", *(f"{record.root}/{log.name}" for log in copies[0])]),
            copies=[[log.name for log in group] for group in copies],
        )
    copies = [group for group in _groups(record.logs, lambda log: log.sha256) if len(group) > 1]
    if copies:
        names = ", ".join(log.name for log in copies[0])
        return DISTINCT.failed(f"{names} are byte for byte one log, counted {len(copies[0])} times")
    again = [g for g in _groups(record.runs, lambda run: _trace(run.block)) if len(g) > 1]
    if again:
        names = ", ".join(run.label for run in again[0])
        return DISTINCT.failed(
            f"{names} print the same losses and the same clock to the last digit: one run is shown as {len(again[0])}",
            runs=[run.label for run in again[0]],
        )
    repeated = _repeated_seed(record)
    if repeated:
        return DISTINCT.failed(repeated)
    return DISTINCT.passed(f"{len(record.runs)} runs in {len(record.logs)} logs, all different")


def _repeated_seed(record: Record) -> str:
    """Fewer seeds printed than claimed: repeats of one seed are not further samples."""
    by_seed = _groups([log for log in record.logs if log.seed is not None], lambda log: log.seed)
    repeated = [group for group in by_seed if len(group) > 1]
    if not repeated or record.is_speedrun:
        return ""
    group = repeated[0]
    printed = {log.seed for log in record.logs if log.seed is not None}
    names = ", ".join(log.name for log in group)
    return f"{names} print one seed, {group[0].seed}: {len(printed)} different seeds among {len(record.logs)} runs"


def _trace(block: Block) -> tuple[object, ...] | int:
    """What cannot repeat by chance: all validations with their clocks. Runs with little of it are all different."""
    rows = [(s.step, str(s.loss), str(s.train_seconds)) for s in block.periodic if s.train_seconds]
    return tuple(rows) if len(rows) >= 3 and len({r[2] for r in rows}) >= 3 else id(block)


def _groups(items: Iterable[T], key: Callable[[T], object]) -> list[list[T]]:
    """Items with equal keys, in order."""
    groups: dict[object, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def _printed(record: Record) -> Found:
    wrong, checked = [], 0
    for run in record.runs:
        if run.log is None or run.log.seed is None:
            continue
        checked += 1
        label = named_seed(run.log)
        line = run.block.seeds[-1][1]
        if label is not None and label not in run.log.seeds:
            wrong.append(
                (f"{run.log.name}:{line} prints seed {run.log.seed}, the file is named for {label}", run.log, line)
            )
        elif run.claim is not None and run.claim.seed not in run.log.seeds:
            wrong.append(
                (
                    f"{run.log.name}:{line} prints seed {run.log.seed}, it is claimed as seed {run.claim.seed}",
                    run.log,
                    line,
                )
            )
    if wrong:
        see = show_line(str(record.root), f"{wrong[0][1].name}:{wrong[0][2]}")
        return PRINTED.failed(listed([text for text, _, _ in wrong]), see=see)
    if not checked:
        return PRINTED.skipped("no log prints its seed")
    claims = record.claims
    absent = sorted(set(claims.listed_seeds) - {s for log in record.logs for s in log.seeds}) if claims else []
    if absent and checked == len(record.runs) and not (claims and claims.seeds):
        return PRINTED.lacks(f"the log of seed {listed(list(map(str, absent)), 6, ', ')}")
    return PRINTED.passed(f"{checked} logs print the seed they stand for")


def _left_over(record: Record) -> Iterator[Found]:
    if record.other_logs:
        names = [log.name for log in record.other_logs]
        yield Note("seeds.others", f"{len(names)} logs are not of a claimed run: {listed(names, 4, ', ')}")
