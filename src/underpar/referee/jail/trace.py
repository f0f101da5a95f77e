"""The log of a jailed program: files opened, programs started, connections tried, from strace where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CALLS = "open,openat,openat2,creat,execve,execveat,connect"
KINDS = ("read", "written", "refused", "refused_writes", "programs", "connections")
MAX_NAMES = 5000
"""Different names that a log keeps; a program that opens more is described by the first ones and a count."""

_OPEN = re.compile(
    r"^\d+\s+(?:open|openat|openat2|creat)\((?:AT_FDCWD|\d+)?(?:<[^>]*>)?,?\s*\"((?:[^\"\\]|\\.)*)\"(.*)$"
)
_EXEC = re.compile(r"^\d+\s+execve(?:at)?\((?:[^\"]*)\"((?:[^\"\\]|\\.)*)\"(.*)$")
_CONNECT = re.compile(r"^\d+\s+connect\(\d+, (\{.*?\}), \d+\)(.*)$")
_RESULT = re.compile(r"=\s*(-?\d+)(?:\s+(E[A-Z]+))?[^=]*$")


@dataclass(frozen=True)
class FileLog:
    """What a program opened, started and tried. Names are as the program gave them."""

    read: tuple[str, ...] = ()
    """Files opened for reading."""
    written: tuple[str, ...] = ()
    """Files opened for writing or made."""
    refused: tuple[str, ...] = ()
    """Files that it tried to open and that were not there or not allowed."""
    refused_writes: tuple[str, ...] = ()
    """Files that it tried to write or make and was not allowed to."""
    programs: tuple[str, ...] = ()
    """Programs started, the command itself first."""
    connections: tuple[str, ...] = ()
    """Addresses that it tried to reach."""
    dropped: int = 0
    """Names beyond the limit of the log."""

    def to_json(self) -> dict[str, Any]:
        return {
            "read": list(self.read),
            "written": list(self.written),
            "refused": list(self.refused),
            "refused_writes": list(self.refused_writes),
            "programs": list(self.programs),
            "connections": list(self.connections),
            "dropped": self.dropped,
        }


@dataclass
class _Builder:
    """Collects names from the lines of strace.

    The first program is the launcher; the second one is what it was asked to start, and what the launcher's own processes
    do is left out.
    """

    names: dict[str, Counter[str]] = field(default_factory=lambda: {k: Counter() for k in KINDS})
    dropped: int = 0
    launcher: set[str] = field(default_factory=set)
    starts: int = 0
    unfinished: dict[str, str] = field(default_factory=dict)

    def take(self, line: str) -> None:
        pid, _, rest = line.partition(" ")
        if rest.rstrip().endswith("<unfinished ...>"):
            self.unfinished[pid] = line.rstrip().removesuffix("<unfinished ...>")
            return
        if rest.lstrip().startswith("<... "):
            line = self.unfinished.pop(pid, "") + line.partition("resumed>")[2]
        if self.starts < 2:
            self.launcher.add(pid)
            started = _EXEC.match(line)
            if started is None or _refused(started[2]):
                return
            self.starts += 1
            if self.starts < 2:
                return
            self.launcher.discard(pid)
        if pid not in self.launcher:
            self._record(line)

    def _record(self, line: str) -> None:
        if found := _OPEN.match(line):
            self._opened(_plain(found[1]), found[2])
        elif found := _EXEC.match(line):
            if not _refused(found[2]):
                self._add("programs", _plain(found[1]))
        elif (found := _CONNECT.match(line)) and "AF_UNIX" not in found[1]:
            self._add("connections", found[1])

    def _opened(self, path: str, rest: str) -> None:
        is_written = any(flag in rest for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"))
        if _refused(rest):
            self._add("refused_writes" if is_written else "refused", path)
        elif is_written:
            self._add("written", path)
        elif "O_DIRECTORY" not in rest:
            self._add("read", path)

    def _add(self, kind: str, name: str) -> None:
        names = self.names[kind]
        if name in names or len(names) < MAX_NAMES:
            names[name] += 1
        else:
            self.dropped += 1

    def finish(self) -> FileLog:
        return FileLog(**{kind: tuple(names) for kind, names in self.names.items()}, dropped=self.dropped)


def parse_log(lines: Iterable[str]) -> FileLog:
    """The log of strace's lines."""
    builder = _Builder()
    for line in lines:
        builder.take(line)
    return builder.finish()


def _refused(rest: str) -> bool:
    found = _RESULT.search(rest)
    return found is not None and int(found[1]) < 0


def _plain(quoted: str) -> str:
    return quoted.encode("latin-1", "replace").decode("unicode_escape", "replace")


class Tracer:
    """strace around the launcher, its log read from a pipe as it is written, so that it needs no disk."""

    def __init__(self, program: str, pipe: Path) -> None:
        self.prefix = (
            program, "-f", "-qq", "--seccomp-bpf", "-e", f"trace={CALLS}", "-e", "signal=none", "-s", "512", "-o", str(pipe),
        )  # fmt: skip
        self._pipe, self._builder = pipe, _Builder()
        self._thread = threading.Thread(target=self._read, daemon=True)

    @staticmethod
    def open(folder: Path) -> Tracer | None:
        """A tracer whose pipe lies in `folder`; None where strace is not installed."""
        program = shutil.which("strace")
        if program is None:
            return None
        pipe = folder / "trace"
        os.mkfifo(pipe)
        return Tracer(program, pipe)

    def follow(self) -> None:
        """Begin to read. Called after strace was started."""
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError), self._pipe.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                self._builder.take(line)

    def close(self) -> FileLog | None:
        """The log, after the program ended; None when strace said nothing, because the machine does not let it trace."""
        with suppress(OSError):  # a strace that never opened the pipe leaves the reader waiting for a writer
            os.close(os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK))
        self._thread.join(5.0)
        log = self._builder.finish()
        return log if log.programs else None
