"""A clean process: a fresh interpreter in a folder of its own, that gets three files and answers with one.

`-I` keeps user site, PYTHON* variables and the current folder out of it; the environment is empty but for what the
interpreter and the device driver need. It imports the same underpar as its parent, by path.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import underpar
from underpar.core.errors import DataError, UnderparError

JOB = "job.json"
RESULT = "result.json"
MAX_RESULT_BYTES = 64 << 20
TAIL_LINES = 20

DEVICE_VARIABLES = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME")
"""Passed on for a GPU: where its driver is and which device is ours. None of them can change a number."""

Event = Callable[[str, float], None]
"""(what is being done, fraction of it that is done)."""


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


@contextmanager
def private_folder(files: Mapping[str, Path]) -> Iterator[Path]:
    """A temporary folder that holds copies of `files` under the given names, removed afterwards.

    Raises DataError when a file cannot be copied.
    """
    with tempfile.TemporaryDirectory(prefix="underpar-verify-") as name:
        folder = Path(name)
        for inside, path in files.items():
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, target)
            except OSError as problem:
                raise DataError(f"cannot read {path}: {problem.strerror or problem}") from None
            target.chmod(0o400)
        yield folder


def run_clean(module: str, folder: Path, job: Mapping[str, Any], limits: Limits, on_event: Event) -> Outcome:
    """Run `module.main(folder)` in a clean process and read what it leaves in `result.json`.

    A process that is killed, runs out of time or leaves nothing readable gives an Outcome without result, never an exception.
    """
    (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
    root = str(Path(underpar.__file__).resolve().parents[1])
    start = (
        f"import sys; sys.path.insert(0, {root!r}); from {module} import main; raise SystemExit(main({str(folder)!r}))"
    )
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", start],
        cwd=folder,
        env=clean_environment(folder, str(job.get("device", "cpu"))),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    reader = threading.Thread(target=_follow, args=(process, tail, on_event), daemon=True)
    reader.start()
    timed_out = False
    try:
        process.wait(limits.seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        _end(process)
        reader.join(5.0)
        if process.stderr:
            process.stderr.close()
    seconds = time.perf_counter() - began
    if timed_out:
        problem = f"measuring took longer than {limits.seconds:g} s and was stopped; allow more with --time-limit"
        return Outcome(None, problem, seconds)
    if process.returncode:
        return Outcome(None, _describe_end(process.returncode, tail), seconds)
    return _read_result(folder / RESULT, seconds)


def clean_environment(folder: Path, device: str) -> dict[str, str]:
    """The whole environment of a clean process."""
    kept = {"HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"}
    if device != "cpu":
        kept["PATH"] = os.defpath
        kept |= {name: os.environ[name] for name in DEVICE_VARIABLES if name in os.environ}
    return kept


def _follow(process: subprocess.Popen[str], tail: deque[str], on_event: Event) -> None:
    """Read the process's stderr to its end: events are JSON lines, everything else is kept for an error message."""
    if process.stderr is None:
        return
    for line in process.stderr:
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


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        process.kill()
    process.wait()


def _describe_end(code: int, tail: deque[str]) -> str:
    last = next((line for line in reversed(tail) if line.strip()), "it said nothing")
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"the clean process was killed by {name}: {last}"
    return f"the clean process ended with code {code}: {last}"


def _read_result(path: Path, seconds: float) -> Outcome:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_RESULT_BYTES + 1)
        if len(raw) > MAX_RESULT_BYTES:
            return Outcome(None, f"the clean process left a result of over {MAX_RESULT_BYTES:,} bytes", seconds)
        result = json.loads(raw)
    except (OSError, ValueError) as problem:
        return Outcome(None, f"the clean process left no readable result: {problem}", seconds)
    if not isinstance(result, dict):
        return Outcome(None, "the clean process left a result that is no object", seconds)
    return Outcome(result, None, seconds)


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """The other end of `run_clean`. Raises UnderparError when the result is not plain JSON data."""
    try:
        text = json.dumps(_finite(result), allow_nan=False)
    except (TypeError, ValueError) as problem:
        raise UnderparError(f"a measurement is not plain JSON data: {problem}") from None
    (folder / RESULT).write_text(text, encoding="utf-8")


def _finite(data: Any) -> Any:
    """JSON has no infinity and no NaN; they travel as words."""
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return repr(data) if isinstance(data, float) and not math.isfinite(data) else data
