"""What comes out of the jail: what the program prints, and what its keeper tells."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

KEPT_TEXT_BYTES = 1 << 18
"""Of what a program prints, this much of the end is kept, and as much of the beginning."""
MAX_CONTROL_LINE = 1 << 20


@dataclass(frozen=True)
class Level:
    """How far the machine let the jail be closed."""

    network: bool = False
    """It has a network of its own with nothing in it."""
    files: bool = False
    """It sees system folders, the interpreter and its inputs, all read-only, and nothing else of the disk."""
    processes: bool = False
    """It sees its own processes only, and none outlives it."""
    problem: str = ""
    """What the machine refused."""

    @property
    def is_closed(self) -> bool:
        return self.network and self.files and self.processes

    @property
    def statement(self) -> str:
        """The level in words."""
        if self.is_closed:
            return (
                "no network; a root of read-only system folders, the interpreter and the named inputs; own processes; "
                "a private disk of bounded size"
            )
        have = [name for name in ("network", "files", "processes") if getattr(self, name)]
        lack = [name for name in ("network", "files", "processes") if not getattr(self, name)]
        reached = f"namespaces for {', '.join(have)}" if have else "no namespaces"
        return f"{reached}, not for {', '.join(lack)} (the machine: {self.problem}); limits of time, memory and processes hold"


class Tail:
    """Reads a stream to its end in the background and keeps its beginning and its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._head, self._tail, self.total = stream, b"", b"", 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            while block := os.read(self._stream.fileno(), 1 << 16):
                self.total += len(block)
                room = KEPT_TEXT_BYTES - len(self._head)
                self._head += block[:room]
                self._tail = (self._tail + block[max(0, room) :])[-KEPT_TEXT_BYTES:]

    def close(self) -> None:
        self._thread.join(2.0)
        self._stream.close()

    @property
    def text(self) -> str:
        lost = self.total - len(self._head) - len(self._tail)
        middle = f"\n... {lost:,} bytes left out ...\n".encode() if lost > 0 else b""
        return (self._head + middle + self._tail).decode("utf-8", "replace")


class Control:
    """Reads what the inner side of the jail tells: the level, the files that were asked for, the exit code."""

    def __init__(self, reader: int, names: dict[str, str]) -> None:
        self._file, self._names = os.fdopen(reader, "rb"), names
        self.level, self.code, self.failed = Level(), None, None
        self.outputs: dict[str, bytes] = {}
        self.missing: dict[str, str] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            while line := self._file.readline(MAX_CONTROL_LINE):
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "level" in message:
            names = message["level"]["namespaces"]
            self.level = Level(names["network"], names["files"], names["processes"], names["problem"])
        elif "output" in message:
            name = self._names[message["output"]]
            if "missing" in message:
                self.missing[name] = message["missing"]
            else:
                self.outputs[name] = self._file.read(message["bytes"])
        elif "code" in message:
            self.code = message["code"]
        elif "failed" in message:
            self.failed = message["failed"]

    def close(self) -> None:
        self._thread.join(5.0)
        self._file.close()
