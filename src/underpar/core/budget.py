"""What a run may spend."""

from dataclasses import replace

from underpar.core.config import Config, NonNegativeFloat, PositiveFloat, PositiveInt, config
from underpar.core.errors import ConfigError


@config
class Budget(Config):
    """Limits of a run; None is no limit. Training stops at the first of the three training limits that is reached."""

    train_seconds: PositiveFloat | None = None
    """Wall-clock seconds of training; compilation, warm-up and validation are outside."""
    calibration_seconds: NonNegativeFloat = 0.0
    """Part of `train_seconds` kept for what reads training text after the last step (Hessians): steps end that much earlier."""
    train_steps: PositiveInt | None = None
    """Optimiser steps."""
    train_tokens: PositiveInt | None = None
    """Training tokens, repeats counted."""
    eval_seconds: PositiveFloat | None = None
    """Wall-clock seconds of scoring the held-out text."""
    artifact_bytes: PositiveInt | None = None
    """Container plus packed source, decimal bytes."""

    def check(self) -> None:
        if self.train_seconds is None and self.train_steps is None and self.train_tokens is None:
            raise ConfigError("no training limit: set train_seconds, train_steps or train_tokens")
        if self.train_seconds is not None and self.calibration_seconds >= self.train_seconds:
            raise ConfigError(
                f"calibration_seconds = {self.calibration_seconds:g} leaves nothing of train_seconds = {self.train_seconds:g}"
            )

    def for_steps(self) -> "Budget":
        """What the steps may spend: the budget without what is kept for calibration."""
        if self.train_seconds is None:
            return self
        return replace(self, train_seconds=self.train_seconds - self.calibration_seconds, calibration_seconds=0.0)
