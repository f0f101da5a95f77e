"""The budget clock: seconds of training, with everything that is not training paused by name.

What is timed is written here and nowhere else. The clock starts when the device is idle, everything is compiled and warm, and
weights, optimiser and random numbers are as they were before the warm-up. Training text is read behind that point, but for
the first step, which a rehearsal may have looked at. The clock then runs until the last step has left the device, and stops for
nothing but the pauses below. Whoever works says so, and work on the wrong side of the clock ends the run. Source: the timing
rules of the speedrun.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from underpar.core.errors import TrainError

TIMED = {
    "step": "schedule, batch, forward, backward, optimiser, logging, and graphs that are compiled on the way",
}
UNTIMED = {
    "start-up": "the interpreter, imports, joining the processes",
    "build": "the model, the optimisers, opening the held-out text",
    "rehearsal": "steps that show which settings are read",
    "compile": "graphs made before the clock starts",
    "warm-up": "steps on random tokens, and putting everything back",
    "validation": "scoring the held-out text",
    "checkpoint": "writing the state to disk; the speedrun's clock runs on, and its times have these seconds put back",
}


class Clock:
    """Counts running seconds; `pause(reason)` stops it and books the pause under its reason.

    Monotonic host time. A caller that wants device work counted synchronises before it reads.
    """

    def __init__(self, elapsed: float = 0.0) -> None:
        self._elapsed = elapsed
        self._started: float | None = None
        self.paused_seconds: dict[str, float] = {}

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> None:
        self._elapsed = self.elapsed
        self._started = None

    @property
    def elapsed(self) -> float:
        """Running seconds so far, pauses excluded."""
        return self._elapsed + (time.perf_counter() - self._started if self._started is not None else 0.0)

    def mark(self, work: str) -> None:
        """`work` begins here. Raises TrainError when it is timed and the clock stands, or the other way round."""
        running = self._started is not None
        if running != (work in TIMED) or work not in TIMED | UNTIMED:
            stands = "runs" if running else "stands"
            raise TrainError(
                f"'{work}' begins while the clock {stands}, which core/clock.py does not allow: no valid time"
            )

    def book(self, reason: str, seconds: float) -> None:
        """Add seconds that were spent off the clock."""
        if reason not in UNTIMED:
            raise TrainError(f"no pause is called '{reason}'; core/clock.py lists them: {', '.join(UNTIMED)}")
        self.paused_seconds[reason] = self.paused_seconds.get(reason, 0.0) + seconds

    @contextmanager
    def pause(self, reason: str) -> Iterator[None]:
        """Stop the clock inside the block; the time goes to `paused_seconds[reason]`."""
        running = self._started is not None
        self.stop()
        self.mark(reason)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.book(reason, time.perf_counter() - began)
            if running:
                self.start()


def process_age() -> float:
    """Seconds since this process began; since this module was imported where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return time.perf_counter() - _IMPORTED
    return up - ticks / os.sysconf("SC_CLK_TCK")


_IMPORTED = time.perf_counter()
