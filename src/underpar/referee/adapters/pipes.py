"""Bytes to and from a program that may not read, may not answer, and may answer too much: every call has a deadline."""

from __future__ import annotations

import os
import select
import time

from underpar.referee.charges import ProgramStopped

BLOCK = 1 << 20


class Deadline:
    """A moment that reads and writes must not pass."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def wait(self, file: int, *, to_write: bool) -> None:
        """Wait until a file can be used. Raises ProgramStopped when the time is over."""
        wanted = ([], [file]) if to_write else ([file], [])
        if not any(select.select(*wanted, [], self.left)):
            raise ProgramStopped(f"no answer within {self.seconds:.4g} s")


def write_all(file: int, data: bytes, deadline: Deadline) -> None:
    """Write everything. Raises ProgramStopped when the reader is gone or too slow."""
    os.set_blocking(file, False)
    view = memoryview(data)
    while view:
        deadline.wait(file, to_write=True)
        try:
            view = view[os.write(file, view[:BLOCK]) :]
        except BlockingIOError:
            continue
        except OSError:
            raise ProgramStopped("the program ended before it had read the question") from None


def read_exactly(file: int, size: int, deadline: Deadline) -> bytes:
    """Exactly `size` bytes. Raises ProgramStopped when the program ends or is too slow."""
    parts: list[bytes] = []
    while size:
        deadline.wait(file, to_write=False)
        part = os.read(file, min(size, BLOCK))
        if not part:
            raise ProgramStopped("the program ended in the middle of an answer")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_line(file: int, limit: int, deadline: Deadline) -> bytes:
    """A line of at most `limit` bytes, without its end."""
    line = b""
    while len(line) < limit:
        byte = read_exactly(file, 1, deadline)
        if byte == b"\n":
            return line
        line += byte
    raise ProgramStopped(f"the program's first line is longer than {limit:,} bytes")
