"""Logs of the speedrun: complete, of one stopping step, with a clock that runs, on the fixed token streams."""

from __future__ import annotations

import re
from collections.abc import Iterator

from underpar.referee.audit.canon import SPEEDRUN_TOKENS
from underpar.referee.audit.facts import LogFacts
from underpar.referee.audit.outcome import Check, Found, listed, show_line
from underpar.referee.audit.record import Record
from underpar.referee.audit.rules import COMPLETE_LOGS, STEPS
from underpar.referee.rules import SPEEDRUN

ENDED = Check("speedrun.finished", "every log ends with the validation after its last step", COMPLETE_LOGS, "V23")
CLOCK = Check("speedrun.clock", "the clock only runs forward, and step_avg is its mean", COMPLETE_LOGS, "V27")
STREAM = Check("speedrun.tokens", "10,485,760 validation tokens are scored", SPEEDRUN, "V08")
STOP = Check("speedrun.stop", "all runs stop at one step", STEPS, "V27")

_VAL_TOKENS = re.compile(r"^\s*val_tokens\s*(?::\s*int\s*)?=\s*([0-9_* ]{4,40}?)\s*(?:#.*)?$", re.MULTILINE)


def check_speedrun(record: Record) -> Iterator[Found]:
    """All checks of this game that need its logs."""
    if not record.is_speedrun or not record.logs:
        return
    yield _ended(record)
    yield _clock(record)
    yield from _stream(record)
    if record.track.counts_steps:
        yield _stop(record)


def _ended(record: Record) -> Found:
    short = [log.name for log in record.logs if len(log.finished) < sum(bool(block.periodic) for block in log.blocks)]
    if not short:
        return ENDED.passed(f"{len(record.runs)} runs in {len(record.logs)} logs are complete")
    return ENDED.lacks(f"the end of {listed(short)}", f"{listed(short)}: no validation after the last step", logs=short)


def _clock(record: Record) -> Found:
    for run in record.runs:
        before = -1.0
        for score in run.block.periodic:
            if score.train_seconds is None or run.log is None:
                continue
            now = score.train_seconds.value
            if now < before:
                place = f"{run.log.name}:{score.line}"
                return CLOCK.failed(
                    f"{place}: {now:.3f} s of training at step {score.step}, {before:.3f} s were printed before",
                    see=show_line(str(record.root), place),
                )
            before = now
    return CLOCK.passed(f"{len(record.runs)} runs")


def _stream(record: Record) -> Iterator[Found]:
    counts = [(log, count) for log in record.logs for count in [_val_tokens(log)] if count is not None]
    wrong = [(log, count) for log, count in counts if count != SPEEDRUN_TOKENS]
    for log, count in wrong[:1]:
        yield STREAM.failed(f"{log.name}: its source sets val_tokens to {count:,}, {SPEEDRUN_TOKENS:,} are scored")
    if counts and not wrong:
        yield STREAM.passed(f"the source of {len(counts)} logs sets {SPEEDRUN_TOKENS:,}")


def _val_tokens(log: LogFacts) -> int | None:
    """The product in 'val_tokens = 10 * 1024 * 1024', None when there is no such line or it is no product."""
    match = _VAL_TOKENS.search(log.source or "")
    if match is None:
        return None
    product = 1
    for factor in match[1].split("*"):
        digits = factor.strip().replace("_", "")
        if not digits.isdecimal():
            return None
        product *= int(digits)
    return product


def _stop(record: Record) -> Found:
    steps = {run.label: run.score.step for run in record.runs if run.score is not None}
    if len(set(steps.values())) > 1:
        shown = listed(sorted({str(step) for step in steps.values()}), 5, ", ")
        return STOP.failed(f"the runs stop at steps {shown}", steps=steps)
    return STOP.passed(f"{len(steps)} runs stand at step {next(iter(steps.values()), None)}")
