"""Tests that need several processes, or one of their own."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any


def joined(rank: int, size: int, port: int, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Run `target` as one rank, with the variables that torchrun sets."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    target(*args)


@dataclass(frozen=True)
class Launcher:
    """Starts processes that have torch already imported: a fork of a clean server, not of this one with its threads."""

    context: Any

    @staticmethod
    def make() -> "Launcher":
        context = get_context("forkserver")
        context.set_forkserver_preload(["torch._dynamo", "support"])
        return Launcher(context)

    def start(self, target: Callable[..., None], *args: Any) -> BaseProcess:
        process = self.context.Process(target=target, args=args)
        process.start()
        return process

    def run(self, target: Callable[..., None], *args: Any) -> int:
        """To the end, and the exit code."""
        process = self.start(target, *args)
        process.join(60)
        assert process.exitcode is not None, "still running after 60 s"
        return process.exitcode

    def together(self, size: int, target: Callable[..., None], *args: Any) -> None:
        """As `size` ranks; every one must end well."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ranks = [self.start(joined, rank, size, port, target, args) for rank in range(size)]
        for process in ranks:
            process.join(60)
        codes = [process.exitcode for process in ranks]
        for process in ranks:
            if process.is_alive():
                process.kill()
        assert codes == [0] * size, f"exit codes of the ranks: {codes}"
