"""Run folders as samples of time to a target: the loss of the finished weights, and the seconds on the clock."""

from collections.abc import Iterable
from typing import Any

from underpar.core.errors import RecordError
from underpar.records.machine import machine_name
from underpar.records.run import Run
from underpar.stats.target import TimedRun

INTERRUPTING = "checkpoint"
"""The only pause inside training that no rule knows: its seconds are put back on the clock."""


def timed_run(run: Run) -> TimedRun:
    """Loss before packing and official seconds of a finished run. Raises RecordError when it did not end."""
    trained = run.require("train.json")
    if trained.get("stop_reason") == "interrupted":
        raise RecordError(f"{run.folder}: interrupted at step {trained['steps']}; the same command finishes it")
    found = trained.get("validation") or {}
    loss = (found.get("averaged") or found.get("raw") or {}).get("loss_nats")
    if loss is None:
        raise RecordError(f"{run.folder}: no validation after training; run it with train.validate_at_end=True")
    environment = run.environment or {}
    return TimedRun(run.label, float(loss), official_seconds(trained), machine_name(environment))


def timed_runs(runs: Iterable[Run]) -> list[TimedRun]:
    """Of one recipe. Raises RecordError when settings other than the seed differ."""
    several = list(runs)
    for other in several[1:]:
        if other.science != several[0].science:
            raise RecordError(
                f"{several[0].folder} and {other.folder} differ in more than the seed; give runs of one recipe"
            )
    return [timed_run(run) for run in several]


def official_seconds(trained: dict[str, Any]) -> float:
    """Seconds from the start of the clock to its end, validations alone left out."""
    paused = trained.get("paused_seconds") or {}
    return float(trained["train_seconds"]) + float(paused.get(INTERRUPTING, 0.0))
