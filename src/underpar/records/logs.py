"""The lines of a training log, as published logs print them: each is a small dataclass with its format and pattern.

    str(TrainStep(1, 20_000, 6.9334, 76, 75.51)) == "step:1/20000 train_loss:6.9334 train_time:76ms step_avg:75.51ms"
    parse_line("seed:1337") == Seed(1337)

Training and scoring write these lines, records read them back, and published logs parse with the same patterns.
Patterns are anchored at both ends, because many published logs begin with a source text that contains the same words.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, TypeVar

from underpar.core.errors import RecordError

__all__ = [
    "LINE_TYPES",
    "BatchShape",
    "Calibrated",
    "CodeSize",
    "FinalRoundtrip",
    "FinalRoundtripExact",
    "FinalSliding",
    "FinalSlidingExact",
    "LogLine",
    "ModelParams",
    "PeakMemory",
    "Reserve",
    "RunLog",
    "Seed",
    "SerializedModel",
    "StopAtCap",
    "TotalSize",
    "TrainStep",
    "ValTokens",
    "Validation",
    "WorldSize",
    "parse_line",
    "parse_log",
    "read_log",
]

_I, _F, _TAG = r"([0-9]+)", r"([0-9]+(?:\.[0-9]+)?)", r"(\S+)"


@dataclass(frozen=True)
class LogLine:
    """Base of the lines. `FORM` formats the fields, `PATTERN` reads them back in the same order."""

    FORM: ClassVar[str]
    PATTERN: ClassVar[re.Pattern[str]]

    def __str__(self) -> str:
        """The published line; names lose their white space, so that they stay one word.

        Raises RecordError for a value that is negative or not finite.
        """
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        for name, value in values.items():
            if not isinstance(value, str) and not (math.isfinite(value) and value >= 0):
                raise RecordError(f"{type(self).__name__}.{name} = {value}: a log line needs a finite value >= 0")
            if isinstance(value, str):
                values[name] = word = "".join(value.split())
                if not word and name != "label":
                    raise RecordError(f"{type(self).__name__}.{name} = {value!r}: a log line needs a name here")
        return self.FORM.format(**values).replace(" :", ":")  # an empty label takes its space with it


L = TypeVar("L", bound=LogLine)


@dataclass(frozen=True)
class ModelParams(LogLine):
    """Parameters of the model."""

    params: int
    FORM: ClassVar[str] = "model_params:{params}"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"model_params:{_I}")


@dataclass(frozen=True)
class WorldSize(LogLine):
    """Processes, and gradient accumulation steps of each."""

    world_size: int
    grad_accum_steps: int
    FORM: ClassVar[str] = "world_size:{world_size} grad_accum_steps:{grad_accum_steps}"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"world_size:{_I} grad_accum_steps:{_I}")


@dataclass(frozen=True)
class Seed(LogLine):
    """The seed that was really used."""

    seed: int
    FORM: ClassVar[str] = "seed:{seed}"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"seed:{_I}")


@dataclass(frozen=True)
class BatchShape(LogLine):
    """Tokens of a step, tokens of a row, scheduled steps, warm-up steps and the training cap in seconds (0: none)."""

    train_batch_tokens: int
    train_seq_len: int
    iterations: int
    warmup_steps: int
    max_wallclock_seconds: float
    FORM: ClassVar[str] = (
        "train_batch_tokens:{train_batch_tokens} train_seq_len:{train_seq_len} iterations:{iterations} "
        "warmup_steps:{warmup_steps} max_wallclock_seconds:{max_wallclock_seconds:.3f}"
    )
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(
        rf"train_batch_tokens:{_I} train_seq_len:{_I} iterations:{_I} warmup_steps:{_I} max_wallclock_seconds:{_F}"
    )


@dataclass(frozen=True)
class ValTokens(LogLine):
    """Predictable tokens of the held-out text."""

    pattern: str
    tokens: int
    FORM: ClassVar[str] = "val_loader:shards pattern={pattern} tokens:{tokens}"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"val_loader:shards pattern={_TAG} tokens:{_I}")


@dataclass(frozen=True)
class TrainStep(LogLine):
    """One optimiser step: its loss in nats, the training clock and the mean step in ms. `total` is the schedule's."""

    step: int
    total: int
    train_loss: float
    train_time_ms: int
    step_avg_ms: float
    FORM: ClassVar[str] = (
        "step:{step}/{total} train_loss:{train_loss:.4f} train_time:{train_time_ms}ms step_avg:{step_avg_ms:.2f}ms"
    )
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(
        rf"step:{_I}/{_I} train_loss:{_F} train_time:{_I}ms step_avg:{_F}ms"
    )


@dataclass(frozen=True)
class Validation(LogLine):
    """A validation during training: loss in nats per token, bits per byte."""

    step: int
    total: int
    val_loss: float
    val_bpb: float
    train_time_ms: int
    step_avg_ms: float
    FORM: ClassVar[str] = (
        "step:{step}/{total} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} "
        "train_time:{train_time_ms}ms step_avg:{step_avg_ms:.2f}ms"
    )
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(
        rf"step:{_I}/{_I} val_loss:{_F} val_bpb:{_F} train_time:{_I}ms step_avg:{_F}ms"
    )


@dataclass(frozen=True)
class StopAtCap(LogLine):
    """Training stopped at the cap on its seconds."""

    train_time_ms: int
    step: int
    total: int
    FORM: ClassVar[str] = "stopping_early: wallclock_cap train_time:{train_time_ms}ms step:{step}/{total}"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"stopping_early: wallclock_cap train_time:{_I}ms step:{_I}/{_I}")


@dataclass(frozen=True)
class PeakMemory(LogLine):
    """Device memory in MiB."""

    allocated_mib: int
    reserved_mib: int
    FORM: ClassVar[str] = "peak memory allocated: {allocated_mib} MiB reserved: {reserved_mib} MiB"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"peak memory allocated: {_I} MiB reserved: {_I} MiB")


@dataclass(frozen=True)
class SerializedModel(LogLine):
    """Bytes of the packed model. `label` names quantiser and codec: 'int8+zlib'; empty before packing."""

    label: str
    model_bytes: int
    FORM: ClassVar[str] = "Serialized model {label}: {model_bytes} bytes"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"Serialized model(?: {_TAG})?: {_I} bytes(?: \(.*\))?")


@dataclass(frozen=True)
class Reserve(LogLine):
    """Seconds of the cap kept for calibration, and the milliseconds left for steps."""

    reserve_seconds: float
    effective_ms: int
    FORM: ClassVar[str] = "gptq:reserving {reserve_seconds:.2f}s, effective={effective_ms}ms"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"gptq:reserving {_F}s, effective={_I}ms")


@dataclass(frozen=True)
class Calibrated(LogLine):
    """Hessians summed over training text after the last step, and the seconds that took."""

    hessians: int
    seconds: float
    FORM: ClassVar[str] = "GPTQ:collected {hessians} Hessians in {seconds:.2f}s"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"GPTQ:collected {_I} Hessians in {_F}s")


@dataclass(frozen=True)
class CodeSize(LogLine):
    """Bytes of the counted source."""

    code_bytes: int
    FORM: ClassVar[str] = "Code size: {code_bytes} bytes"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"Code size: {_I} bytes")


@dataclass(frozen=True)
class TotalSize(LogLine):
    """Bytes of the artifact: model plus code."""

    label: str
    total_bytes: int
    FORM: ClassVar[str] = "Total submission size {label}: {total_bytes} bytes"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"Total submission size(?: {_TAG})?: {_I} bytes")


@dataclass(frozen=True)
class FinalRoundtrip(LogLine):
    """The score of the packed and re-loaded model, with its evaluation time in ms. `tag`: 'int8_zlib'."""

    tag: str
    val_loss: float
    val_bpb: float
    eval_time_ms: int
    FORM: ClassVar[str] = (
        "final_{tag}_roundtrip val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_time:{eval_time_ms}ms"
    )
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(
        rf"final_{_TAG}_roundtrip val_loss:{_F} val_bpb:{_F} eval_time:{_I}ms"
    )


@dataclass(frozen=True)
class FinalRoundtripExact(LogLine):
    """The same score with eight decimals: the number that a record quotes."""

    tag: str
    val_loss: float
    val_bpb: float
    FORM: ClassVar[str] = "final_{tag}_roundtrip_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"final_{_TAG}_roundtrip_exact val_loss:{_F} val_bpb:{_F}")


@dataclass(frozen=True)
class FinalSliding(LogLine):
    """A sliding-window score with its evaluation time in ms. `stride` in tokens."""

    stride: int
    val_loss: float
    val_bpb: float
    eval_time_ms: int
    FORM: ClassVar[str] = (
        "final_sliding_window stride:{stride} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_time:{eval_time_ms}ms"
    )
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(
        rf"final_sliding_window stride:{_I} val_loss:{_F} val_bpb:{_F} eval_time:{_I}ms"
    )


@dataclass(frozen=True)
class FinalSlidingExact(LogLine):
    """The sliding-window score with eight decimals."""

    stride: int
    val_loss: float
    val_bpb: float
    FORM: ClassVar[str] = "final_sliding_window_exact stride:{stride} val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(
        rf"final_sliding_window_exact stride:{_I} val_loss:{_F} val_bpb:{_F}"
    )


LINE_TYPES: tuple[type[LogLine], ...] = (
    ModelParams,
    WorldSize,
    Seed,
    BatchShape,
    ValTokens,
    TrainStep,
    Validation,
    StopAtCap,
    PeakMemory,
    Reserve,
    Calibrated,
    SerializedModel,
    CodeSize,
    TotalSize,
    FinalRoundtrip,
    FinalRoundtripExact,
    FinalSliding,
    FinalSlidingExact,
)


def parse_line(text: str) -> LogLine | None:
    """The line that `text` is, or None. Surrounding white space is not part of a line."""
    stripped = text.strip()
    for kind in LINE_TYPES:
        match = kind.PATTERN.fullmatch(stripped)
        if match:
            types = [spec.type for spec in fields(kind)]
            return kind(*(_convert(v, t) for v, t in zip(match.groups(), types, strict=True)))
    return None


def _convert(value: str | None, kind: object) -> int | float | str:
    if value is None:  # an optional label
        return ""
    return int(value) if kind is int else float(value) if kind is float else value


@dataclass(frozen=True)
class RunLog:
    """The recognised lines of one log, in order."""

    lines: tuple[LogLine, ...]

    def all(self, kind: type[L]) -> list[L]:
        """Every line of that kind."""
        return [line for line in self.lines if isinstance(line, kind)]

    def last(self, kind: type[L]) -> L | None:
        """The last line of that kind: where a log holds several runs or scores, the last counts."""
        return next((line for line in reversed(self.lines) if isinstance(line, kind)), None)

    @property
    def seed(self) -> int | None:
        line = self.last(Seed)
        return line.seed if line else None

    @property
    def final(self) -> FinalRoundtripExact | FinalSlidingExact | None:
        """The last score with eight decimals, of either kind."""
        kinds = (FinalRoundtripExact, FinalSlidingExact)
        return next((line for line in reversed(self.lines) if isinstance(line, kinds)), None)


def parse_log(lines: Iterable[str]) -> RunLog:
    """Every recognised line; anything else is passed over."""
    return RunLog(tuple(_recognised(lines)))


def _recognised(lines: Iterable[str]) -> Iterator[LogLine]:
    for text in lines:
        line = parse_line(text)
        if line is not None:
            yield line


def read_log(path: Path) -> RunLog:
    """Parse a log file. Raises RecordError when it is absent or not UTF-8."""
    try:
        return parse_log(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as problem:
        raise RecordError(f"{path}: not a readable log ({problem}); point at the train.log of a run") from None
