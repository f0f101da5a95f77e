"""A Python function or class of somebody else's, loaded in a jail and asked over pipes."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from underpar.core.errors import ConfigError
from underpar.referee.adapters import host
from underpar.referee.adapters.pipes import Deadline, read_exactly, read_line, write_all
from underpar.referee.charges import ChargeFault, ProgramRaised, ProgramStopped, checked
from underpar.referee.jail.run import Ended, Jail, Running
from underpar.referee.predictor import distribution

MAX_MESSAGE_BYTES = 1 << 16
MAX_STOPS = 2
"""A program that gave no answer this often is not started again."""
HOST = "host.py"
SUBMISSION = "submission"


@dataclass(frozen=True)
class Target:
    """What is copied into the jail, and what is loaded there."""

    name: str
    """'file.py:name', relative to the folder, or 'package.module:name'."""
    folder: Path | None
    """All of it is copied; None copies the file alone."""
    file: Path | None
    """None for a module."""

    @staticmethod
    def parse(text: str, folder: Path | None = None) -> Target:
        """'path/file.py:name', or 'package.module:name' with the folder that holds the package.

        Raises ConfigError when a part is missing or the file is not there.
        """
        where, _, name = text.rpartition(":")
        if not where or not name.isidentifier():
            raise ConfigError(f"'{text}' names no Python object; write file.py:name, or module:name with --dir")
        if not where.endswith(".py"):
            if folder is None:
                raise ConfigError(f"'{text}' is a module; name the folder that holds it with --dir")
            return Target(text, folder, None)
        path = Path(where)
        if not path.is_file():
            raise ConfigError(f"there is no file {path}; write file.py:name")
        if folder is None:
            return Target(f"{path.name}:{name}", None, path)
        try:
            relative = path.resolve().relative_to(folder.resolve())
        except ValueError:
            raise ConfigError(f"{path} is not in {folder}; --dir names the folder that holds it") from None
        return Target(f"{relative}:{name}", folder, path)

    def inputs(self) -> dict[str, Path]:
        """What the jail holds."""
        host_file = {HOST: Path(host.__file__)}
        if self.folder is not None:
            return host_file | {SUBMISSION: self.folder}
        assert self.file is not None
        return host_file | {f"{SUBMISSION}/{self.file.name}": self.file}


class PythonPredictor:
    """A predictor behind `host.py`. Every question is answered by a fork of the freshly loaded program.

    Raises ProgramStopped when it does not load. `close` must be called.
    """

    def __init__(
        self, jail: Jail, target: Target, *, vocab_size: int, bos_id: int | None, nats_per_unit: float = 1.0
    ) -> None:
        self.jail, self.target = jail, target
        self.vocab_size, self.bos_id, self.nats_per_unit = vocab_size, bos_id, nats_per_unit
        self.ended: Ended | None = None
        """The first process, once it is over: with its log of files."""
        self._stops = 0
        self._running: Running | None = None
        self._running, about = self._start(self.jail, trace=True)
        self.form: str = about["form"]
        self.warms_up: bool = about["warms_up"]

    def close(self) -> None:
        """End the program."""
        if self._running is not None:
            self.ended, self._running = self.ended or _finish(self._running), None

    # ----------------------------------------------------------------------------------------- questions

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        """From a fork of the loaded program. Raises ChargeFault and ProgramStopped."""
        return self._ask(self._alive(), tokens)

    def charges_after(self, before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """After a warm-up on `before`, in the same process."""
        if self.form == "stepwise":
            raise ConfigError("a stepwise predictor has no warm-up of its own")
        running = self._alive()
        return self._answer(running, b"A" + _question(before) + _question(tokens), len(tokens) - 1)

    def fresh_charges(self, tokens: np.ndarray) -> np.ndarray:
        """From a program that is started for this question alone, in a new jail."""
        with self._fresh() as running:
            return self._ask(running, tokens)

    def distributions(self, tokens: np.ndarray) -> np.ndarray:
        """Of a stepwise predictor: probabilities float64 (N - 1, V), each given before its token was sent."""
        return np.stack(list(self._steps(self._alive(), tokens)))

    # ----------------------------------------------------------------------------------------- inside

    def _ask(self, running: Running, tokens: np.ndarray) -> np.ndarray:
        if self.form != "stepwise":
            return self._answer(running, b"Q" + _question(tokens), len(tokens) - 1)
        charges = np.empty(len(tokens) - 1)
        for place, row in enumerate(self._steps(running, tokens)):
            with np.errstate(divide="ignore"):
                charges[place] = -np.log(row[tokens[place + 1]])
        return checked(charges, len(charges))

    def _answer(self, running: Running, question: bytes, positions: int) -> np.ndarray:
        deadline = Deadline(self.jail.limits.seconds)
        with self._explained(running):
            write_all(running.stdin, question, deadline)
            values = _read_values(running.stdout, positions, deadline)
        return checked(values * self.nats_per_unit, positions)

    def _steps(self, running: Running, tokens: np.ndarray) -> Iterator[np.ndarray]:
        """One distribution for every token but the first; the token itself is sent afterwards."""
        deadline = Deadline(self.jail.limits.seconds)
        with self._explained(running):
            write_all(running.stdin, b"S", deadline)
            for token in tokens[:-1].tolist():
                write_all(running.stdin, struct.pack("<I", token), deadline)
                yield distribution(_read_values(running.stdout, self.vocab_size, deadline), self.vocab_size)
            write_all(running.stdin, struct.pack("<I", host.END_OF_STREAM), deadline)

    @contextmanager
    def _explained(self, running: Running) -> Iterator[None]:
        """A program that gave no usable answer is ended, with what it said last as the reason."""
        try:
            yield
        except ProgramRaised:
            raise
        except (ProgramStopped, ChargeFault) as problem:
            ended = _finish(running, str(problem))
            if running is self._running:
                self.ended, self._running, self._stops = self.ended or ended, None, self._stops + 1
            if isinstance(problem, ChargeFault):
                raise
            said = ended.stderr.strip().splitlines()
            raise ProgramStopped(f"{ended.problem}{f': {said[-1][:300]}' if said else ''}") from None

    def _alive(self) -> Running:
        if self._running is None:
            if self._stops >= MAX_STOPS:
                raise ProgramStopped(f"it was stopped {self._stops} times and is asked no more")
            self._running, _ = self._start(self.jail, trace=False)
        return self._running

    def _start(self, jail: Jail, *, trace: bool) -> tuple[Running, dict[str, Any]]:
        argv = [sys.executable, "-I", "-B", jail.input(HOST), jail.input(SUBMISSION), self.target.name]
        running = jail.start(argv, trace=trace)
        running.keep("stderr")
        with self._explained(running):
            line = read_line(running.stdout, MAX_MESSAGE_BYTES, Deadline(self.jail.limits.seconds))
        about = json.loads(line)
        if "problem" in about:
            _finish(running)
            raise ProgramStopped(f"{self.target.name} does not load: {about['problem']}")
        return running, about

    @contextmanager
    def _fresh(self) -> Iterator[Running]:
        with self.jail.twin() as jail:
            running, _ = self._start(jail, trace=False)
            try:
                yield running
            finally:
                _finish(running)


def _finish(running: Running, problem: str | None = None) -> Ended:
    if running.process.stdin and not running.process.stdin.closed:
        running.process.stdin.close()
    return running.finish(1.0, problem)


def _question(tokens: np.ndarray) -> bytes:
    return struct.pack("<Q", len(tokens)) + tokens.astype("<u2").tobytes()


def _read_values(file: int, most: int, deadline: Deadline) -> np.ndarray:
    """The float64 values of one answer. Raises ChargeFault for an answer that is too long or an error of the program."""
    kind, size = read_exactly(file, 1, deadline), struct.unpack("<Q", read_exactly(file, 8, deadline))[0]
    if kind == b"E":
        message = read_exactly(file, min(size, MAX_MESSAGE_BYTES), deadline).decode("utf-8", "replace")
        raise ProgramRaised(f"it raised {message}")
    if kind != b"C":
        raise ProgramStopped("the answer is none of the protocol")
    if size > 2 * most + 16:
        raise ChargeFault("count", f"{size:,} values where {most:,} were asked for")
    return np.frombuffer(read_exactly(file, 8 * size, deadline), dtype="<f8")
