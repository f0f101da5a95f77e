"""Is everything there that a record consists of, and is it what it seems?"""

from __future__ import annotations

from collections.abc import Iterator

from underpar.referee.audit.outcome import Check, Found, Note, listed
from underpar.referee.audit.record import Record
from underpar.referee.rules import PACKAGE

COMPLETE = Check("package.complete", "the parts of a record are there", PACKAGE, "V23")
READABLE = Check("package.readable", "every file can be read as what it is", PACKAGE, "V23")


def check_files(record: Record) -> Iterator[Found]:
    """Missing parts, files that are no plain files, files that cannot be read."""
    yield _complete(record)
    yield _readable(record)
    yield from _unopened_scripts(record)


def _complete(record: Record) -> Found:
    absent = []
    if not record.is_speedrun and record.claims is None and not _unreadable(record, "submission"):
        absent.append("submission.json")
    if not record.logs:
        absent.append("a training log")
    elif any(run.log is None for run in record.runs):
        seeds = [str(run.seed) for run in record.runs if run.log is None]
        absent.append(f"the log of seed {listed(seeds, 6, ', ')}")
    if not record.is_speedrun and record.main_source is None and not record.made_by_underpar:
        absent.append("the training script")
    if record.is_speedrun and not any(log.source for log in record.logs) and record.main_source is None:
        absent.append("the source, in the logs or beside them")
    here = f"{len(record.inventory.items)} files, {len(record.logs)} logs of runs"
    if absent:
        return COMPLETE.lacks(listed(absent, 4, ", "), f"missing: {listed(absent, 4, ', ')} ({here})", absent=absent)
    if record.readme is None:
        return COMPLETE.passed(f"{here}; no README, which explains a submission", absent=["README.md"])
    return COMPLETE.passed(here)


def _unreadable(record: Record, name: str) -> bool:
    return any(name in problem for problem in record.problems)


def _readable(record: Record) -> Found:
    odd = [f"{o.name}: {o.what}" for o in record.inventory.oddities]
    faults = list(record.claims.faults) if record.claims else []
    faults = [f"{record.claims.file}: {fault}" for fault in faults] if record.claims else []
    problems = [*record.problems, *odd, *faults]
    if not problems:
        return READABLE.passed("all are plain files within their limits")
    text = listed(problems)
    return READABLE.lacks(f"readable files ({text})", f"not opened or not understood: {text}", problems=problems[:50])


def _unopened_scripts(record: Record) -> Iterator[Found]:
    for source in record.sources:
        if source.problem:
            yield Note("scan.unread", f"not scanned: {source.problem}", file=source.item.name)
