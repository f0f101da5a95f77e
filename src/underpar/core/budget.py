"""What a run may spend."""

from underpar.core.config import Config, PositiveFloat, PositiveInt, config
from underpar.core.errors import ConfigError


@config
class Budget(Config):
    """Limits of a run; None is no limit. Training stops at the first of the three training limits that is reached."""

    train_seconds: PositiveFloat | None = None
    """Wall-clock seconds of training; compilation, warm-up and validation are outside."""
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
