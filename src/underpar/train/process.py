"""The process around the steps: signals and garbage collection."""

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """Whether somebody asked the run to end. Inside `watched`, SIGINT and SIGTERM ask; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        def note(number: int, _frame: object) -> None:
            if self.asked:
                signal.default_int_handler(number, None)
            self.asked = True

        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, note)
        except ValueError:  # not the main thread: the caller handles signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def unburdened_collector() -> Iterator[None]:
    """Leave what set-up and compilation made out of garbage collection, whose full passes would stall the steps."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
