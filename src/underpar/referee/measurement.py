"""What was measured, stage by stage: facts as plain JSON data, or the reason why there is none. Judges nothing."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from underpar.core.errors import UnderparError
from underpar.referee.charges import ChargeFault

Event = Callable[[str, float], None]
"""(what is being done, fraction of it that is done)."""


def silent(doing: str, done: float) -> None:
    """Progress for nobody."""


@dataclass
class Measurement:
    """Facts by stage, and the stages that failed."""

    on_event: Event = silent
    facts: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """Run one stage; its value, or None when it failed."""
        self.on_event(name, 0.0)
        began = time.perf_counter()
        try:
            return work()
        except (UnderparError, MemoryError, RuntimeError, OSError, ValueError) as problem:
            # A hostile file may break torch in ways that are no error of ours. It is the finding, with its kind.
            text = str(problem).strip().partition("\n")[0] or "no message"
            self.errors[name] = {"kind": type(problem).__name__, "message": text[:1000]}
            if isinstance(problem, ChargeFault):
                self.errors[name]["fault"] = problem.kind
            return None
        finally:
            self.seconds[name] = round(time.perf_counter() - began, 3)

    def fact(self, name: str, work: Callable[[], Any]) -> Any:
        """Run a stage whose value has `to_json` and keep that as its fact. None that it returns leaves no fact."""
        value = self.stage(name, work)
        if value is not None:
            self.facts[name] = value.to_json()
        return value

    def to_json(self) -> dict[str, Any]:
        return {"facts": self.facts, "errors": self.errors, "seconds": self.seconds}


def plain(data: Any) -> Any:
    """The same as JSON gives it back. JSON has no infinity and no NaN; they travel as words."""
    return json.loads(json.dumps(_finite(data), allow_nan=False))


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return repr(data) if isinstance(data, float) and not math.isfinite(data) else data
