"""Running one program of somebody else's: a private folder, the inputs it may read, limits, and what came of it.

    with Jail(inputs={"val.bin": shard}, limits=Limits()) as jail:
        ended = jail.run(["./score", jail.input("val.bin")], outputs={"charges": 8 * n})

Paths inside are the paths outside, so that a command reads the same wherever the machine allows namespaces and wherever not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from underpar.core.errors import DataError
from underpar.referee.jail.devices import OPENS_A_DEVICE, device_environment
from underpar.referee.jail.streams import Control, Level, Tail
from underpar.referee.jail.trace import FileLog, Tracer
from underpar.referee.jail.watch import Watch, end_tree

LAUNCH = Path(__file__).with_name("launch.py")
WIDEST, NETWORK_ALONE, NO_NAMESPACES = range(3)
"""Where launch.py begins to try what the machine allows."""


@dataclass(frozen=True)
class JailLimits:
    """What one program may use. All of it bounded, whatever the program does."""

    seconds: float = 600.0
    """Wall-clock."""
    memory_bytes: int = 8 << 30
    """Of all its processes together."""
    processes: int = 128
    """At once, threads not counted."""
    written_bytes: int = 1 << 30
    """Everything that it leaves on its private disk at once; it is a memory file system where the machine allows one."""
    open_files: int = 1024


@dataclass(frozen=True)
class Ended:
    """How a program ended and what it left."""

    code: int | None
    """Exit code, 128 + signal; None when it was stopped."""
    problem: str | None
    """One line on why it was stopped or could not run; None when it ended by itself."""
    wall_seconds: float
    stdout: str
    stderr: str
    outputs: dict[str, bytes]
    """Files that were asked for and are there."""
    missing: dict[str, str]
    """Files that were asked for and are not, with the reason."""
    level: Level
    most_processes: int = 0
    most_memory_bytes: int = 0
    files: FileLog | None = None


@dataclass
class Running:
    """A program that was started. `finish` must be called."""

    process: subprocess.Popen[bytes]
    watch: Watch
    began: float
    control: Control
    tracer: Tracer | None
    texts: dict[str, Tail] = field(default_factory=dict)

    @property
    def stdin(self) -> int:
        """The file number that the program reads from."""
        assert self.process.stdin is not None
        return self.process.stdin.fileno()

    @property
    def stdout(self) -> int:
        """The file number that the program writes to."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def keep(self, name: str) -> None:
        """Read 'stdout' or 'stderr' in the background and keep its beginning and end."""
        self.texts[name] = Tail(getattr(self.process, name))

    def finish(self, timeout: float, problem: str | None = None) -> Ended:
        """Wait for the program, at most `timeout` seconds; then end it and everything it started."""
        try:
            self.process.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            problem = problem or f"it ran for more than {timeout:.4g} s and was stopped"
        self.watch.stop()
        end_tree(self.process.pid)
        self.process.wait()
        seconds = time.perf_counter() - self.began
        self.control.close()
        for tail in self.texts.values():
            tail.close()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        found, problem = self.control, self.watch.problem or problem
        if problem is None and found.failed:
            problem = f"the jail could not be set up: {found.failed}"
        text = {name: tail.text for name, tail in self.texts.items()}
        return Ended(
            code=None if problem else found.code,
            problem=problem or (None if found.code is not None else "it ended without a word"),
            wall_seconds=seconds,
            stdout=text.get("stdout", ""),
            stderr=text.get("stderr", ""),
            outputs=found.outputs,
            missing=found.missing,
            level=found.level,
            most_processes=self.watch.most.processes,
            most_memory_bytes=self.watch.most.memory_bytes,
            files=self.tracer.close() if self.tracer else None,
        )


class Jail:
    """A private folder with inputs, in which programs run one after the other, never two at once, each from the same
    clean state.

    inputs: name -> file or folder, copied once. read_only: more paths of the machine that may be read, such as the
    interpreter's. devices: device files that it may use; a driver is then free to reserve memory. hide_files: give it a root
    of its own where the machine allows that. Raises DataError when an input cannot be copied.
    """

    def __init__(
        self,
        inputs: Mapping[str, Path],
        *,
        read_only: Sequence[Path] = (),
        limits: JailLimits | None = None,
        devices: Sequence[str] = (),
        hide_files: bool = True,
    ) -> None:
        self.limits = limits or JailLimits()
        self.read_only = [*interpreter_folders(), *(str(path.resolve()) for path in read_only)]
        self.devices, self.hide_files = list(devices), hide_files
        self._closure: int | None = None if devices else WIDEST
        self._folder = tempfile.TemporaryDirectory(prefix="underpar-jail-", ignore_cleanup_errors=True)
        self._place()
        try:
            for name, source in inputs.items():
                self.add(name, source)
        except DataError:
            self._folder.cleanup()
            raise

    def _place(self) -> None:
        self.path = Path(self._folder.name).resolve()
        self.inputs, self.work = self.path / "in", self.path / "work"
        self.inputs.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._folder.cleanup()

    def add(self, name: str, source: Path) -> Path:
        """Copy a file or folder among the inputs."""
        target = self.inputs / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copyfile(source, target)
        except (OSError, shutil.Error) as problem:
            raise DataError(f"cannot copy {source} into the sandbox: {problem}") from None
        return target

    def twin(self) -> Jail:
        """A jail of its own with copies of the same inputs."""
        made = copy(self)
        made._folder = tempfile.TemporaryDirectory(prefix="underpar-jail-", ignore_cleanup_errors=True)
        made._place()
        for source in self.inputs.iterdir():
            made.add(source.name, source)
        return made

    def input(self, name: str) -> str:
        """The path of an input as the program sees it."""
        return str(self.inputs / name)

    def output(self, name: str) -> str:
        """The path of a file in the program's working folder."""
        return str(self.work / name)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        copies: Mapping[str, str] | None = None,
        outputs: Mapping[str, int] | None = None,
        trace: bool = False,
    ) -> Ended:
        """Run a program to its end in a fresh working folder. Never raises for what the program does.

        copies: input -> name in the working folder, for files that the program may write to ('' spreads a folder there).
        outputs: name in the working folder -> the most bytes that will be taken of it.
        """
        started = self.start(argv, env=env, copies=copies, outputs=outputs, trace=trace)
        if started.process.stdin:
            started.process.stdin.close()
        started.keep("stdout")
        started.keep("stderr")
        return started.finish(self.limits.seconds)

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        copies: Mapping[str, str] | None = None,
        outputs: Mapping[str, int] | None = None,
        trace: bool = False,
    ) -> Running:
        """Start a program whose stdin, stdout and stderr are pipes of the caller's."""
        if self._closure is None:
            self._closure = self._closure_for_devices()
        run_folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.path))
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        (run_folder / "root").mkdir()
        reader, writer = os.pipe()
        spec = self._spec(run_folder, argv, env or {}, copies or {}, outputs or {}, writer)
        spec_path = run_folder / "spec.json"
        spec_path.write_text(json.dumps(spec), encoding="utf-8")
        tracer = Tracer.open(run_folder) if trace else None
        began = time.perf_counter()
        process = subprocess.Popen(
            [*(tracer.prefix if tracer else ()), sys.executable, "-I", "-S", "-B", str(LAUNCH), str(spec_path)],
            cwd=self.path,
            env={"LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(writer,),
            start_new_session=True,
        )
        os.close(writer)
        if tracer:
            tracer.follow()
        watch = Watch(process.pid, processes=self.limits.processes + 3, memory_bytes=self.limits.memory_bytes)
        return Running(process, watch, began, Control(reader, {str(self.work / n): n for n in outputs or {}}), tracer)

    def _closure_for_devices(self) -> int:
        """The first closure in which the driver works: some refuse to in namespaces of users or processes, or without the
        files that are hidden. The widest where none helps, so that the program says what is wrong.
        """
        opens = [sys.executable, "-I", "-S", "-c", OPENS_A_DEVICE]
        for closure in (WIDEST, NETWORK_ALONE, NO_NAMESPACES):
            self._closure = closure
            if self.run(opens, env=device_environment("cuda")).code == 0:
                return closure
        return WIDEST

    def _spec(
        self,
        run_folder: Path,
        argv: Sequence[str],
        env: Mapping[str, str],
        copies: Mapping[str, str],
        outputs: Mapping[str, int],
        control_fd: int,
    ) -> dict[str, Any]:
        limits = self.limits
        rlimits = {
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": limits.open_files,
            "RLIMIT_FSIZE": limits.written_bytes,
            "RLIMIT_CPU": int(limits.seconds * (os.cpu_count() or 1)) + 1,
        }
        if not self.devices:  # a driver reserves address space far beyond what it uses
            rlimits["RLIMIT_DATA"] = limits.memory_bytes
        home = {
            "HOME": str(self.work),
            "TMPDIR": str(self.work),
            "USER": "jail",
            "LANG": "C.UTF-8",
            "PATH": search_path(),
        }
        return {
            "argv": list(argv),
            "env": home | dict(env),
            "cwd": str(self.work),
            "inputs": str(self.inputs),
            "work": str(self.work),
            "root": str(run_folder / "root"),
            "hide_files": self.hide_files,
            "closure": self._closure,
            "read_only": self.read_only,
            "devices": self.devices,
            "copies": [[self.input(source), self.output(target)] for source, target in copies.items()],
            "outputs": [[self.output(name), limit] for name, limit in outputs.items()],
            "limits": asdict(limits),
            "rlimits": rlimits,
            "control_fd": control_fd,
        }


def interpreter_folders() -> list[str]:
    """Where this interpreter and its packages lie."""
    folders = {str(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    return sorted(folders - {"/", "/usr"})


def search_path() -> str:
    """PATH inside: this interpreter's programs, then the system's."""
    return os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
