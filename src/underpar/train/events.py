"""What a run says while it runs: events to any number of sinks, and the effect trace.

An event is a flat dict with "event" naming its kind: start, step, recompilation, validation, checkpoint, stop. The JSON-lines
file always gets all of them; a sink that fails is dropped with a warning and never stops a run.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from underpar.core.whole import write_whole

Event = dict[str, Any]


class Sink(Protocol):
    """Receives every event of a run."""

    def log(self, event: Event) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One JSON object a line. On resume, what lies after the checkpoint's step is cut off."""

    def __init__(self, path: Path, resume_step: int = 0) -> None:
        kept = []
        if resume_step and path.exists():
            kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= resume_step]
        write_whole(path, "".join(line + "\n" for line in kept))  # a kill here must not cost the history
        self._file = path.open("a", encoding="utf-8")

    def log(self, event: Event) -> None:
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()  # what a checkpoint stands on must outlive a kill

    def close(self) -> None:
        self._file.close()


def _step_of(line: str) -> float:
    try:
        event = json.loads(line)
    except ValueError:  # the line that a kill cut short
        return float("inf")
    return float("inf") if event.get("event") == "stop" else event.get("step", 0)


class Sinks:
    """Fans events out. The first sinks given to `required` may raise; the others are dropped when they fail."""

    def __init__(self, required: Iterable[Sink] = (), optional: Iterable[Sink] = ()) -> None:
        self._required, self._optional = list(required), list(optional)

    def log(self, event: Event) -> None:
        for sink in self._required:
            sink.log(event)
        for sink in list(self._optional):
            self._guard(sink, lambda sink=sink: sink.log(event))

    def close(self) -> None:
        for sink in self._required:
            sink.close()
        for sink in list(self._optional):
            self._guard(sink, sink.close)

    def _guard(self, sink: Sink, call: Any) -> None:
        try:
            call()
        except Exception as problem:
            self._optional.remove(sink)
            print(f"warning: {type(sink).__name__} failed and is off from here on: {problem}", file=sys.stderr)


class EffectTrace:
    """Every setting that was actually consumed, with the steps at which its value changed.

    A recipe that claims to change a setting, and whose trace never differs from its parent's, changed nothing.
    """

    def __init__(self, changes: dict[str, list[list[float]]] | None = None) -> None:
        self.changes = changes or {}
        self._last: dict[str, float] = {}

    def record(self, step: int, used: dict[str, float]) -> None:
        for name, value in used.items():
            if self._last.get(name) == value:  # most are constant, and rounding is what costs
                continue
            self._last[name] = value
            points = self.changes.setdefault(name, [])
            rounded = float(f"{value:.9g}")
            if not points or points[-1][1] != rounded:
                points.append([step, rounded])

    def values_at(self, name: str, step: int) -> float:
        """The value of `name` in force at `step`. Raises KeyError for a setting that nobody consumed."""
        return [value for at, value in self.changes[name] if at <= step][-1]
