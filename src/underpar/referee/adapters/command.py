"""A command of somebody else's: every question is a run of it on a shard of our making, in a clean jail."""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from underpar.core.errors import ConfigError
from underpar.data.shards import shard_name, write_shard
from underpar.referee.adapters.printed import PrintedScore, read_printed
from underpar.referee.charges import ChargeFault, ProgramStopped, checked
from underpar.referee.jail.run import Ended, Jail

VAL_FOLDER = "val"
SUBMISSION = "submission"
CHARGES_FILE = "charges.bin"
PLACEHOLDERS = ("val", "val_dir", "charges", "world")
MAX_HEADER_BYTES = 4096


@dataclass(frozen=True)
class CommandLine:
    """A command with places for what changes between runs: {val}, {val_dir}, {charges}, {world}."""

    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def parse(text: str, env: Mapping[str, str] | None = None) -> CommandLine:
        """Raises ConfigError for an empty command, or one that names no shard."""
        try:
            words = tuple(shlex.split(text))
        except ValueError as problem:
            raise ConfigError(f"the command cannot be split into words: {problem}") from None
        made = CommandLine(words, dict(env or {}))
        if not words:
            raise ConfigError("the command is empty; give what starts the predictor")
        if not made.mentions("val") and not made.mentions("val_dir"):
            raise ConfigError("the command names no shard; put {val} or {val_dir} where it takes its validation data")
        return made

    def mentions(self, name: str) -> bool:
        """Whether a placeholder occurs in the command or its environment."""
        return any(f"{{{name}}}" in text for text in (*self.words, *self.env.values()))

    def fill(self, places: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """The words and the environment with every placeholder replaced."""

        def filled(text: str) -> str:
            for name, value in places.items():
                text = text.replace(f"{{{name}}}", value)
            return text

        return [filled(word) for word in self.words], {name: filled(value) for name, value in self.env.items()}


class CommandPredictor:
    """Charges of every position, from the file that the command writes; or only the loss that it prints.

    Every question starts the command anew, so that no state is left over.
    """

    def __init__(
        self,
        jail: Jail,
        command: CommandLine,
        *,
        vocab_size: int,
        bos_id: int | None,
        nats_per_unit: float = 1.0,
        world: int = 1,
    ) -> None:
        self.jail, self.command, self.world = jail, command, world
        self.vocab_size, self.bos_id, self.nats_per_unit = vocab_size, bos_id, nats_per_unit
        self.traced_tokens = 0
        """Runs on this many tokens leave a log of files, and so does the first one."""
        self.runs: list[Ended] = []
        """How every run so far ended."""

    @property
    def charges_positions(self) -> bool:
        """Whether the command writes a charge for every position."""
        return self.command.mentions("charges")

    @property
    def takes_world(self) -> bool:
        """Whether the number of processes can be chosen."""
        return self.command.mentions("world")

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        """A run on these tokens. A tail that published evaluations leave out is NaN. Raises ChargeFault, ProgramStopped."""
        positions = len(tokens) - 1
        ended = self._run(tokens, self.world, {CHARGES_FILE: 8 * positions + MAX_HEADER_BYTES})
        if CHARGES_FILE in ended.missing:
            raise ProgramStopped(f"it left no file of charges at {{charges}}: {ended.missing[CHARGES_FILE]}")
        values = read_charges(ended.outputs[CHARGES_FILE], positions)
        return checked(values * self.nats_per_unit, positions, may_lack_tail=True)

    def charges_on(self, processes: int, tokens: np.ndarray) -> np.ndarray:
        """The same with another number of processes."""
        was, self.world = self.world, processes
        try:
            return self.charges(tokens)
        finally:
            self.world = was

    def work(self, tokens: np.ndarray) -> str:
        """What the processes share is the program's own affair."""
        return "whatever it shares"

    def printed(self, tokens: np.ndarray) -> PrintedScore:
        """The loss that a run on these tokens prints. Raises ProgramStopped when it prints none."""
        ended = self._run(tokens, self.world, {})
        found = read_printed(ended.stdout) or read_printed(ended.stderr)
        if found is None:
            raise ProgramStopped(f"it printed no line with val_loss; its last words: {_last_line(ended)}")
        return found

    def close(self) -> None:
        """Nothing is left running."""

    def _run(self, tokens: np.ndarray, world: int, outputs: Mapping[str, int]) -> Ended:
        shard = self.jail.inputs / VAL_FOLDER / shard_name("val", 0)
        shard.parent.mkdir(exist_ok=True)
        shard.unlink(missing_ok=True)
        write_shard(shard, tokens.astype(np.uint16))
        places = {
            "val": str(shard),
            "val_dir": str(shard.parent),
            "charges": self.jail.output(CHARGES_FILE),
            "world": str(world),
        }
        argv, env = self.command.fill(places)
        copies = {SUBMISSION: ""} if (self.jail.inputs / SUBMISSION).exists() else {}
        trace = not self.runs or len(tokens) == self.traced_tokens
        ended = self.jail.run(argv, env=env, copies=copies, outputs=outputs, trace=trace)
        self.runs.append(ended)
        if ended.problem or ended.code:
            why = ended.problem or f"it ended with code {ended.code}"
            raise ProgramStopped(f"{why}: {_last_line(ended)}")
        return ended


def read_charges(data: bytes, positions: int) -> np.ndarray:
    """A file of charges: .npy of float32 or float64, or the bare little-endian values, float64 unless only float32 fits.

    Raises ChargeFault when it is neither.
    """
    if data[:6] == b"\x93NUMPY":
        try:
            values = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except ValueError as problem:
            raise ChargeFault("form", f"the file of charges is a damaged .npy: {problem}") from None
        if values.dtype not in (np.float32, np.float64) or values.ndim != 1:
            raise ChargeFault("form", f"the .npy of charges holds {values.dtype} of shape {values.shape}")
        return values
    if len(data) == 4 * positions:
        return np.frombuffer(data, dtype="<f4")
    if len(data) % 8:
        raise ChargeFault("form", f"the file of charges has {len(data):,} bytes, no whole number of float64")
    return np.frombuffer(data, dtype="<f8")


def _last_line(ended: Ended) -> str:
    lines = [line for line in (ended.stderr or ended.stdout).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "it said nothing"
