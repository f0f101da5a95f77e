"""Progress of a preparation on stderr: a bar for people, a line every ten seconds for files and pipes."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from underpar.core.units import format_count
from underpar.data.corpora import ReadMeter
from underpar.data.prepare import Progress
from underpar.data.shards import Split

LINE_SECONDS = 10.0


class PrepareProgress(Progress):
    """Shows split, documents, tokens, speed and time left. A context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar: Bar | None = None
        self._meter = ReadMeter()
        self._total_bytes = 0
        self._counts = [0, 0, 0]
        self._began = self._last_line = time.monotonic()

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, soft_wrap=True)

    def begin(self, total_bytes: int, meter: ReadMeter) -> None:
        self._meter, self._total_bytes = meter, total_bytes
        self._began = self._last_line = time.monotonic()
        if sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(28), TextColumn("{task.fields[note]}"), TimeRemainingColumn(),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("preparing", total=total_bytes, note="")

    def advance(self, split: Split, documents: int, tokens: int, text_bytes: int) -> None:
        self._counts = [a + b for a, b in zip(self._counts, (documents, tokens, text_bytes), strict=True)]
        now = time.monotonic()
        done, written, size = self._counts
        speed = size / 1e6 / max(now - self._began, 1e-3)
        note = f"{done:,} documents  {format_count(written)} tokens  {size / 1e6:,.1f} MB of text  {speed:.1f} MB/s"
        if self._bar:
            self._bar.update(self._task, completed=self._meter.done_bytes, description=split, note=note)
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self.say(f"{split}: {note}  {self._meter.done_bytes / max(self._total_bytes, 1):.0%} read")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
