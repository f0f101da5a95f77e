"""Artifacts that learn while they are scored, behind the interface that the probes see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from underpar.core.world import World
from underpar.evaluate.adaptation import Adaptation
from underpar.evaluate.scorers import adapted_charges
from underpar.evaluate.windows import Documents, Window
from underpar.model.gpt import GPT


@dataclass(frozen=True)
class AdaptedPredictor:
    """A model under test-time training; every question begins with the weights of the artifact."""

    model: GPT
    adaptation: Adaptation
    vocab_size: int
    bos_id: int
    device: str = "cpu"
    progress: Callable[[float], None] | None = None

    warms_up: ClassVar[bool] = True

    @property
    def window(self) -> Window:
        """What the model sees of a document at a time."""
        return Documents(context=self.adaptation.context)

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        world = World(device=self.device)
        return adapted_charges(
            self.model, self.adaptation, tokens, bos_id=self.bos_id, world=world, progress=self.progress
        )

    def charges_after(self, before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Another text is scored first, by the same model in memory."""
        self.charges(before)
        return self.charges(tokens)
