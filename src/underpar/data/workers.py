"""Encoding on every core: worker processes that answer one batch at a time, in the order in which batches were given.

Workers are plain child processes fed through pipes, not a multiprocessing pool: they need no guard in the caller's script,
copy nothing of its memory, and end by themselves when it dies, however it dies, because their pipe does.
"""

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from underpar.core.errors import DataError
from underpar.data.corpora import Record
from underpar.data.encoding import EncodedBatch, batches, encode_batch, receive_encoded, send_records
from underpar.data.tokenizer_base import Tokenizer

BATCHES_AHEAD = 3
"""Batches read ahead per worker: enough that none waits, few enough that memory stays at some megabytes each."""


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Encoder:
    """Encodes streams of records with a saved tokenizer on `workers` processes (1: in this one). A context manager."""

    def __init__(self, tokenizer: Tokenizer, folder: Path, workers: int) -> None:
        """`folder` holds the tokenizer as `Tokenizer.save` wrote it, from which every worker loads its own."""
        if workers < 1:
            raise DataError(f"workers = {workers} is out of range: at least 1 process encodes")
        self._tokenizer = tokenizer
        self._folder = folder
        self._threads = ThreadPoolExecutor(workers, "encoder") if workers > 1 else None
        self._ahead = BATCHES_AHEAD * workers
        self._local = threading.local()
        self._processes: list[subprocess.Popen[bytes]] = []

    def encode(self, records: Iterable[Record], *, with_text: bool) -> Iterator[tuple[list[Record], EncodedBatch]]:
        """Batches of records and their encodings, in order. Raises DataError naming the document that is at fault."""
        if self._threads is None:
            for batch in batches(records):
                yield batch, encode_batch(self._tokenizer, batch, with_text=with_text)
            return
        waiting: deque[tuple[list[Record], Future[EncodedBatch]]] = deque()
        for batch in batches(records):
            waiting.append((batch, self._threads.submit(self._ask, batch, with_text)))
            if len(waiting) >= self._ahead:
                first, answer = waiting.popleft()
                yield first, answer.result()
        for first, answer in waiting:
            yield first, answer.result()

    def _ask(self, batch: list[Record], with_text: bool) -> EncodedBatch:
        """Have this thread's worker encode a batch, starting it at the first one."""
        worker: subprocess.Popen[bytes] | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = _start_worker(self._folder)
            self._processes.append(worker)
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            send_records(worker.stdin, batch, with_text=with_text)
            return receive_encoded(worker.stdout)
        except (EOFError, OSError):
            raise DataError(
                f"an encoding process ended with status {worker.wait()}, probably for want of memory; use fewer --workers"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._threads is None:
            return
        if kind is not None:
            for process in self._processes:
                process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # bytes meant for a worker that was killed
                        pipe.close()
            process.wait()


def _start_worker(folder: Path) -> "subprocess.Popen[bytes]":
    """A child in a process group of its own: an interrupt from the terminal reaches the parent alone, which ends it."""
    program = f"import sys; sys.path[:] = {sys.path!r}; from underpar.data.encode_worker import main; main(sys.argv[1])"
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    )
