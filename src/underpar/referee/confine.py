"""What a clean process gives up before it opens a foreign file. Runs inside that process, first thing, on Linux.

Every step says what it reached: a machine that refuses a step weakens the statement, not the measurement.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Any

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
MAX_OPEN_FILES = 512
MAX_WRITTEN_FILE_BYTES = 256 << 20


@dataclass(frozen=True)
class Confinement:
    """The level that was reached."""

    network: str
    """'none': a network namespace of its own without a configured interface. Otherwise why not."""
    memory_limit_bytes: int | None
    cpu_limit_seconds: int | None
    files: str
    environment: tuple[str, ...]
    """Names of the environment variables that the process was given."""

    @property
    def has_network(self) -> bool:
        return self.network != "none"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def confine(*, memory_bytes: int | None, cpu_seconds: int) -> Confinement:
    """Give up the network and set limits on memory, CPU time, open files and written files, for good.

    memory_bytes: limit of private memory; None where a device driver reserves address space far beyond what it uses.
    """
    network = _drop_network()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _limit(resource.RLIMIT_FSIZE, MAX_WRITTEN_FILE_BYTES)
    _limit(resource.RLIMIT_CPU, cpu_seconds)
    if memory_bytes is not None:
        _limit(resource.RLIMIT_DATA, memory_bytes)
    files = "a private folder with copies of the artifact, the tokenizer and the text; other paths are not hidden"
    return Confinement(network, memory_bytes, cpu_seconds, files, tuple(sorted(os.environ)))


def _drop_network() -> str:
    """Enter an empty network namespace, with a user namespace where privileges ask for one."""
    if not sys.platform.startswith("linux"):
        return f"not closed: {sys.platform} has no network namespaces"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) and libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        return f"not closed: the kernel refuses a network namespace ({os.strerror(ctypes.get_errno())})"
    names = [name for _, name in socket.if_nameindex()]
    return "none" if set(names) <= {"lo"} else f"not closed: interfaces {', '.join(names)} are visible"


def _limit(kind: int, value: int) -> None:
    """Lower a limit; one that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (wanted, wanted))
