"""A clean process of ours in the jail: a fresh interpreter that gets some files and answers with one.

`-I` keeps user site, PYTHON* variables and the current folder out of it; the environment is empty but for what the
interpreter and the device driver need. It imports the same underpar as its parent, by path.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import underpar
from underpar.referee.jail.devices import device_environment, device_files
from underpar.referee.jail.run import Ended, Jail, JailLimits
from underpar.referee.jail.streams import Level
from underpar.referee.measurement import Event, plain

JOB = "job.json"
RESULT = "result.json"
MAX_RESULT_BYTES = 64 << 20
TAIL_LINES = 20
UNLIMITED_BYTES = 1 << 50
"""A GPU driver maps what the device holds."""


@dataclass(frozen=True)
class Limits:
    """What a clean process may use."""

    seconds: float = 1800.0
    memory_bytes: int = 16 << 30
    """Private memory on the CPU."""


@dataclass(frozen=True)
class Outcome:
    """How a clean process ended. `result` is None unless it finished."""

    result: dict[str, Any] | None
    problem: str | None
    """One line on why there is no result."""
    wall_seconds: float
    level: Level = field(default_factory=Level)
    """How far the machine let the process be closed."""


def run_clean(
    module: str, files: Mapping[str, Path], job: Mapping[str, Any], limits: Limits, on_event: Event
) -> Outcome:
    """Run `module.main(folder)` in a clean process and read what it leaves in `result.json`.

    files: name inside the folder -> file that is copied there. A process that is killed, runs out of time or leaves nothing
    readable gives an Outcome without result, never an exception. Raises DataError when a file cannot be copied.
    """
    device = str(job.get("device", "cpu"))
    root = Path(underpar.__file__).resolve().parents[1]
    with (
        tempfile.TemporaryDirectory() as drawer,
        Jail(
            dict(files),
            read_only=[root],
            limits=JailLimits(
                seconds=limits.seconds, memory_bytes=limits.memory_bytes if device == "cpu" else UNLIMITED_BYTES
            ),
            devices=device_files(device),
            hide_files=device == "cpu",
        ) as jail,
    ):
        described = Path(drawer) / JOB
        described.write_text(json.dumps(job), encoding="utf-8")
        jail.add(JOB, described)
        start = f"import sys; sys.path.insert(0, {str(root)!r}); from {module} import main; "
        start += f"raise SystemExit(main({str(jail.inputs)!r}))"
        argv = [sys.executable, "-I", "-B", "-c", start]
        began = time.perf_counter()
        running = jail.start(argv, env=device_environment(device), outputs={RESULT: MAX_RESULT_BYTES})
        assert running.process.stdin is not None
        assert running.process.stderr is not None
        running.process.stdin.close()
        running.keep("stdout")
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        reader = threading.Thread(target=_follow, args=(running.process.stderr, tail, on_event), daemon=True)
        reader.start()
        ended = running.finish(limits.seconds)
        reader.join(5.0)
        running.process.stderr.close()
    return _outcome(ended, tail, time.perf_counter() - began, limits)


def _follow(stream: IO[bytes], tail: deque[str], on_event: Event) -> None:
    """Read the process's stderr to its end: events are JSON lines, everything else is kept for an error message."""
    with suppress(ValueError, OSError):
        for raw in stream:
            line = raw.decode("utf-8", "replace")
            event = _event(line)
            if event is None:
                tail.append(line.rstrip()[:500])
            else:
                on_event(*event)


def _event(line: str) -> tuple[str, float] | None:
    if not line.startswith('{"doing"'):
        return None
    try:
        data = json.loads(line)
        return str(data["doing"]), float(data["done"])
    except (ValueError, KeyError, TypeError):
        return None


def _outcome(ended: Ended, tail: deque[str], seconds: float, limits: Limits) -> Outcome:
    last = next((line for line in reversed(tail) if line.strip()), "it said nothing")
    problem = None
    if ended.problem:
        advice = "; allow more with --time-limit" if ended.wall_seconds >= limits.seconds else ""
        problem = f"measuring was stopped: {ended.problem}{advice}"
    elif ended.code:
        problem = f"the clean process ended with code {ended.code}: {last}"
    elif RESULT in ended.missing:
        problem = f"the clean process left no result: {ended.missing[RESULT]}"
    if problem is None:
        try:
            result = json.loads(ended.outputs[RESULT])
        except ValueError as wrong:
            problem = f"the clean process left no readable result: {wrong}"
        else:
            if isinstance(result, dict):
                return Outcome(result, None, seconds, ended.level)
            problem = "the clean process left a result that is no object"
    return Outcome(None, problem, seconds, ended.level)


def write_result(result: Mapping[str, Any]) -> None:
    """The other end of `run_clean`: leave the result in the working folder."""
    Path(RESULT).write_text(json.dumps(plain(result)), encoding="utf-8")
