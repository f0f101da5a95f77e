"""The outer side of the jail: how many processes there are, what memory they hold, and ending all of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FIRST_LOOK_SECONDS = 0.01
LAST_LOOK_SECONDS = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Use:
    """What a tree of processes holds at one moment."""

    processes: int
    memory_bytes: int
    """Private memory of all of them, and the largest shared part once."""


def descendants(root: int) -> list[int]:
    """The process ids under `root`, itself included, parents first. Only ids that can be seen in /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            parent = _parent(int(entry.name))
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, ())
    return found


def _parent(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
        return int(text[text.rindex(b")") + 2 :].split()[1])
    except (OSError, ValueError):
        return None


def use_of(pids: list[int]) -> Use:
    """Processes and memory of these ids; those that ended meanwhile count nothing."""
    private, largest_shared, alive = 0, 0, 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
        except OSError:
            continue
        resident, shared = int(fields[1]), int(fields[2])
        alive += 1
        private += resident - shared
        largest_shared = max(largest_shared, shared)
    return Use(alive, (private + largest_shared) * _PAGE)


def end_tree(root: int) -> None:
    """Kill everything under `root` and at last `root` itself, until nothing is left."""
    for _ in range(50):
        pids = descendants(root)
        for pid in reversed(pids):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if len(pids) <= 1:
            return
        time.sleep(0.01)


class Watch:
    """Looks at a tree of processes until it is told to stop, and ends the tree when it passes a limit."""

    def __init__(self, root: int, *, processes: int, memory_bytes: int) -> None:
        self.root, self.processes, self.memory_bytes = root, processes, memory_bytes
        self.problem: str | None = None
        """Which limit was passed."""
        self.most = Use(0, 0)
        """The most that was seen at once, each on its own."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no longer. Returns when the last look is over."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause = FIRST_LOOK_SECONDS
        while not self._stop.wait(pause):
            use = use_of(descendants(self.root))
            growing = use.processes > self.most.processes  # look again at once: it may be a fork bomb
            pause = FIRST_LOOK_SECONDS if growing else min(1.5 * pause, LAST_LOOK_SECONDS)
            self.most = Use(max(self.most.processes, use.processes), max(self.most.memory_bytes, use.memory_bytes))
            if use.processes > self.processes:
                self.problem = f"it ran {use.processes} processes at once, allowed are {self.processes}"
            elif use.memory_bytes > self.memory_bytes:
                self.problem = f"it held {use.memory_bytes:,} bytes of memory, allowed are {self.memory_bytes:,}"
            if self.problem:
                end_tree(self.root)
                return
