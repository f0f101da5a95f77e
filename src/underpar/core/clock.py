"""The budget clock: seconds of training, with everything that is not training paused by name."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


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

    @contextmanager
    def pause(self, reason: str) -> Iterator[None]:
        """Stop the clock inside the block; the time goes to `paused_seconds[reason]`."""
        running = self._started is not None
        self.stop()
        began = time.perf_counter()
        try:
            yield
        finally:
            self.paused_seconds[reason] = self.paused_seconds.get(reason, 0.0) + time.perf_counter() - began
            if running:
                self.start()
