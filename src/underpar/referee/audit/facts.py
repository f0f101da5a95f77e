"""What a log says, gathered: one `Block` per run that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from underpar.referee.audit.printed import Printed


@dataclass(frozen=True)
class Score:
    """One line with a loss (nats per token), bits per byte, or both. `step`: a validation while training."""

    label: str
    loss: Printed | None
    bpb: Printed | None
    line: int
    step: int | None = None
    total: int | None = None
    train_seconds: Printed | None = None
    eval_seconds: Printed | None = None
    diagnostic: bool = False

    @property
    def is_final(self) -> bool:
        return self.step is None and not self.diagnostic


@dataclass(frozen=True)
class Size:
    """A printed number of bytes."""

    label: str
    bytes: int
    line: int


@dataclass(frozen=True)
class Clock:
    """A printed duration."""

    what: str
    seconds: float
    line: int


@dataclass
class Block:
    """One run in a log. (value, line) pairs where a finding has to point at the line."""

    seeds: list[tuple[int, int]] = field(default_factory=list)
    val_tokens: list[tuple[int, int]] = field(default_factory=list)
    documents: tuple[int, int] | None = None
    train_shards: tuple[int, int] | None = None
    batch_tokens: int | None = None
    params: int | None = None
    world_size: int | None = None
    cap_seconds: Printed | None = None
    stop_seconds: Printed | None = None
    stop_step: tuple[int, int] | None = None
    last_progress: tuple[int, Printed] | None = None
    totals: list[Size] = field(default_factory=list)
    models: list[Size] = field(default_factory=list)
    codes: list[Size] = field(default_factory=list)
    reserve_seconds: Printed | None = None
    calibration: list[Clock] = field(default_factory=list)
    self_generated: bool = False
    total_eval: Printed | None = None
    untimed: list[Clock] = field(default_factory=list)
    hints: tuple[int, int, int, int] | None = None
    scores: list[Score] = field(default_factory=list)
    periodic: list[Score] = field(default_factory=list)

    @property
    def finals(self) -> list[Score]:
        """Scores of the finished model, in order; diagnostics left out."""
        return [s for s in self.scores if s.is_final]

    @property
    def ended(self) -> bool:
        """Whether anything was printed that only a finished training prints."""
        return self.stop_seconds is not None or bool(self.scores)

    @property
    def tokens(self) -> int | None:
        return self.val_tokens[-1][0] if self.val_tokens else None

    @property
    def total_bytes(self) -> Size | None:
        """The artifact: the last total that names a codec; a total without one is of the uncompressed model."""
        coded = [s for s in self.totals if s.label]
        return coded[-1] if coded else None

    @property
    def model_bytes(self) -> Size | None:
        coded = [s for s in self.models if s.label]
        return coded[-1] if coded else None

    @property
    def code_bytes(self) -> Size | None:
        """The counted code: the compressed size where a log prints both."""
        counted = [s for s in self.codes if s.label != "uncompressed"]
        return counted[-1] if counted else (self.codes[-1] if self.codes else None)

    @property
    def train_seconds(self) -> Printed | None:
        """The training clock where it stopped: the stop line, else the last validation."""
        if self.stop_seconds is not None:
            return self.stop_seconds
        clocked = [s.train_seconds for s in self.periodic if s.train_seconds is not None]
        return clocked[-1] if clocked else None

    @property
    def steps(self) -> tuple[int, int] | None:
        """(steps trained, line)"""
        if self.stop_step is not None:
            return self.stop_step
        done = [(s.step, s.line) for s in self.periodic if s.step is not None]
        return done[-1] if done else None

    @property
    def last_validation(self) -> Score | None:
        """The validation after the last step, N/N: the result of a speedrun."""
        last = self.periodic[-1] if self.periodic else None
        return last if last is not None and last.step == last.total else None


@dataclass
class LogFacts:
    """One log file, read."""

    name: str
    size: int
    sha256: str = ""
    lines: int = 0
    blocks: list[Block] = field(default_factory=list)
    source: str | None = None
    """The script printed in front of the log, up to the first rule of '='."""
    gpus: frozenset[str] = frozenset()
    problems: list[str] = field(default_factory=list)

    @property
    def block(self) -> Block:
        """The run that counts: the last one with a score, else the last."""
        for block in reversed(self.blocks):
            if block.finals or block.last_validation:
                return block
        return self.blocks[-1] if self.blocks else Block()

    @property
    def finished(self) -> list[Block]:
        """The runs of a speedrun log that end with a validation after their last step; a log may hold many."""
        return [block for block in self.blocks if block.last_validation is not None]

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for block in self.blocks for seed, _ in block.seeds})

    @property
    def seed(self) -> int | None:
        return self.block.seeds[-1][0] if self.block.seeds else None

    @property
    def is_log(self) -> bool:
        """Whether anything was recognised in it."""
        return any(b.scores or b.periodic or b.last_progress or b.stop_seconds for b in self.blocks)

    @property
    def has_bpb(self) -> bool:
        return any(s.bpb for b in self.blocks for s in (*b.scores, *b.periodic))

    def all_scores(self) -> Iterator[Score]:
        for block in self.blocks:
            yield from block.periodic
            yield from block.scores
