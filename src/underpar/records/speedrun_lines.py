"""The lines of a speedrun log, as its tools parse them."""

import re
from dataclasses import dataclass
from typing import ClassVar

from underpar.records.logs import LogLine

RULE = "=" * 100
COMPILING = "Compiling model and warming up kernels"
RESETTING = "Resetting Model"

_I, _F = r"([0-9]+)", r"([0-9]+(?:\.[0-9]+)?)"


@dataclass(frozen=True)
class TimedStep(LogLine):
    """A training step by the host's clock."""

    step: int
    total: int
    train_time_ms: int
    step_avg_ms: float
    FORM: ClassVar[str] = "step:{step}/{total} train_time:{train_time_ms}ms step_avg:{step_avg_ms:.2f}ms"
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(rf"step:{_I}/{_I} train_time:{_I}ms step_avg:{_F}ms")


@dataclass(frozen=True)
class TimedValidation(LogLine):
    """A validation; with equal step numbers, the result of the run."""

    step: int
    total: int
    val_loss: float
    train_time_ms: int
    step_avg_ms: float
    FORM: ClassVar[str] = (
        "step:{step}/{total} val_loss:{val_loss:.4f} train_time:{train_time_ms}ms step_avg:{step_avg_ms:.2f}ms"
    )
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(
        rf"step:{_I}/{_I} val_loss:(\d\.\d{{4}}) train_time:{_I}ms step_avg:{_F}ms"
    )


@dataclass(frozen=True)
class StepsValidation(LogLine):
    """A validation on the optimiser track: five digits, seconds."""

    step: int
    total: int
    val_loss: float
    train_time_s: float
    step_avg_ms: float
    FORM: ClassVar[str] = (
        "step:{step}/{total} val_loss:{val_loss:.5f} train_time:{train_time_s:.3f}s step_avg:{step_avg_ms:.2f}ms"
    )
    PATTERN: ClassVar[re.Pattern[str]] = re.compile(
        rf"step:{_I}/{_I} val_loss:(\d\.\d{{5}}) train_time:{_F}s step_avg:{_F}ms"
    )
