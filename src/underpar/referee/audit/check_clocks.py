"""Seconds: training with what calibrates the quantiser, evaluation, and whether the steps fit the clock."""

from __future__ import annotations

from collections.abc import Iterator

from underpar.core.units import format_seconds
from underpar.referee.audit.outcome import Check, Found, Note, listed, show_line
from underpar.referee.audit.record import Record
from underpar.referee.audit.runs import Run
from underpar.referee.rules import CALIBRATION, REPRODUCIBLE, TIME, Mark

TRAIN = Check("clock.train", "training stops at the cap", TIME, "V20")
CALIBRATE = Check("clock.calibration", "training and calibration together fit the cap", CALIBRATION, "V20")
EVALUATE = Check("clock.eval", "evaluation fits its own cap", TIME, "V21")
PACE = Check("clock.steps", "the steps fit the clock", REPRODUCIBLE, "V24")
MACHINE = Check("clock.machine", "the runs were made on the machine of the track", TIME, "V24")

_OVERSHOOT = 0.3
"""Seconds that the step in flight may take: at most 0.14 among 127 merged logs."""
_CALIBRATION_SLACK = 0.2
_TOLERATED = 10.0
"""A few seconds of calibration beyond the cap are argued about; sixteen merged logs have up to four."""
_PACE = 1.25
"""Steps in a log's last stretch come slower, not faster, than before; a quarter more is no pace of the same machine."""
_PEAK = 989e12
"""Dense bf16 FLOP/s of one H100 SXM."""


def check_clocks(record: Record) -> Iterator[Found]:
    """Clocks of every track that sets a limit, and the pace of all."""
    if record.track.train_seconds:
        yield _train(record, record.track.train_seconds)
        yield _calibration(record, record.track.train_seconds)
    if record.track.eval_seconds:
        yield _evaluation(record, record.track.eval_seconds)
    if record.track.name == "golf-record":
        yield from _machine(record)
    yield _pace(record)


def _train(record: Record, limit: float) -> Found:
    over, seen = [], []
    for run in record.runs:
        if run.log is None or run.block.train_seconds is None:
            continue
        seconds = run.block.train_seconds
        steps = run.block.steps
        step = seconds.value / max(1, steps[0]) if steps else 0.0
        seen.append(seconds.value)
        if seconds.value > limit + max(_OVERSHOOT, 2 * step) + seconds.unit:
            over.append(f"{seconds.where}: training stopped at {seconds.value:.3f} s, the cap is {limit:g} s")
    caps = [(run.log.name, cap) for run in record.runs if run.log and (cap := run.block.cap_seconds)]
    if over:
        place = over[0].split(": ")[0]
        return TRAIN.failed(listed(over), see=show_line(str(record.root), place), longest=max(seen))
    if not seen:
        stated = record.claims.train_seconds if record.claims else None
        if stated and stated.value > limit + _OVERSHOOT:
            return TRAIN.failed(f"{stated.where} = {stated.value:.1f} s, the cap is {limit:g} s")
        return TRAIN.lacks("a log that says when training stopped") if record.logs else TRAIN.skipped("there is no log")
    wider = [f"{name} sets a cap of {cap.value:g} s" for name, cap in caps if cap.value > limit or cap.value == 0]
    note = f"; {wider[0]}" if wider else ""
    return TRAIN.passed(f"longest of {len(seen)} runs {max(seen):.3f} s, cap {limit:g} s{note}", longest=max(seen))


def _calibration(record: Record, limit: float) -> Found:
    over, longest, seen = [], 0.0, 0
    for run in record.runs:
        if run.log is None or run.block.self_generated or run.block.train_seconds is None:
            continue
        block, stop = run.block, run.block.train_seconds
        spent = sum(clock.seconds for clock in block.calibration)
        if not block.calibration or stop is None:
            continue
        seen += 1
        together = stop.value + spent
        longest = max(longest, together)
        if together > limit + _CALIBRATION_SLACK:
            reserve = block.reserve_seconds
            kept = f" ({reserve.value:g} s were reserved)" if reserve else ""
            over.append(
                f"{run.log.name}: stop at {stop.value:.1f} s (line {stop.where.rpartition(':')[2]}) + {spent:.1f} s of "
                f"calibration on training data (line {block.calibration[0].line}) = {together:.1f} s{kept}"
            )
    if over:
        mark = Mark.COMMUNITY if longest - limit < _TOLERATED else Mark.OFFICIAL
        return CALIBRATE.failed(f"{listed(over)}; the cap is {limit:g} s", mark=mark, longest=longest)
    if not seen:
        return CALIBRATE.skipped("no log prints a calibration on training data")
    return CALIBRATE.passed(f"longest of {seen} runs {longest:.1f} s, calibration included")


def _evaluation(record: Record, limit: float) -> Found:
    seen: list[tuple[float, str]] = []
    for run in record.runs:
        seen += _eval_clocks(run)
    if not seen and record.claims and record.claims.eval_seconds:
        seen = [(record.claims.eval_seconds.value, record.claims.eval_seconds.where)]
    if not seen:
        return EVALUATE.skipped("no evaluation time is printed")
    longest, where = max(seen)
    said = f"longest of {len(seen)} timed evaluations {format_seconds(longest)} ({where}), cap {limit:g} s"
    if longest > limit + 0.05:
        return EVALUATE.failed(said, see=show_line(str(record.root), where), longest=longest)
    return EVALUATE.passed(said, longest=longest)


def _eval_clocks(run: Run) -> list[tuple[float, str]]:
    """The pass that the score stands on (under whichever label its time is printed), and a printed total."""
    if run.log is None:
        return []
    block = run.block
    clocks = [block.total_eval] if block.total_eval else []
    if run.score is not None and run.score.bpb is not None:
        same = [s for s in block.finals if s.bpb and s.bpb.agrees(run.score.bpb)]
        clocks += [s.eval_seconds for s in same if s.eval_seconds]
    return [(clock.value, clock.where) for clock in clocks]


# -------------------------------------------------------------------------------------------------------- pace


def _pace(record: Record) -> Found:
    """Steps at the stop against the pace of the lines before it, and against what eight H100 can do."""
    wrong, seen = [], 0
    for run in record.runs:
        if run.log is None:
            continue
        block = run.block
        steps, seconds, before = block.steps, block.train_seconds, block.last_progress
        if not steps or not seconds or seconds.value <= 0:
            continue
        seen += 1
        if before and before[1].value > 0.5 * seconds.value and before[0] > 50:
            expected = before[0] * (seconds.value + seconds.unit) / max(before[1].value - before[1].unit, 1e-9)
            if steps[0] > expected * _PACE or steps[0] < before[0] / _PACE:
                wrong.append(
                    f"{run.log.name}:{steps[1]} ends at step {steps[0]:,} after {seconds.value:.0f} s, but "
                    f"{before[1].where} is at step {before[0]:,} after {before[1].value:.0f} s"
                )
        flops = 6.0 * (block.params or 0) * (block.batch_tokens or 0) * steps[0] / seconds.value
        if flops > 8 * _PEAK and not record.is_speedrun:
            wrong.append(
                f"{run.log.name}: {steps[0]:,} steps in {seconds.value:.0f} s are {flops:.2g} FLOP/s, "
                "more than eight H100 have"
            )
    if wrong:
        return PACE.failed(listed(wrong), contradictions=wrong)
    return (
        PACE.passed(f"{seen} runs keep their pace to the end")
        if seen
        else PACE.skipped("no log prints steps and seconds")
    )


def _machine(record: Record) -> Iterator[Found]:
    others, sizes = set(), set()
    for log in record.logs:
        others |= {gpu for gpu in log.gpus if gpu != "H100"}
        if log.block.world_size:
            sizes.add(log.block.world_size)
    if others:
        yield MACHINE.failed(f"the logs name {listed(sorted(others), 3, ', ')}, the track is 8xH100 SXM")
    elif sizes - {8}:
        yield MACHINE.failed(f"world size {listed([str(s) for s in sorted(sizes)], 3, ', ')}, the track has 8 GPUs")
    elif sizes or any(log.gpus for log in record.logs):
        yield MACHINE.passed("8 processes" + (" on H100" if any(log.gpus for log in record.logs) else ""))
    for log in record.logs:
        spent = sum(c.seconds for c in log.block.untimed)
        clock = log.block.total_eval
        if clock and spent and clock.value + spent > (record.track.eval_seconds or 600.0) >= clock.value:
            yield Note(
                "clock.untimed",
                f"{log.block.untimed[0].what} took {spent:.0f} s, {clock.value + spent:.0f} s with what is timed",
                "V21", log.name, log.block.untimed[0].line,
            )  # fmt: skip
