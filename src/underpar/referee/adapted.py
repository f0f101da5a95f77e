"""Artifacts that learn while they are scored, behind the interface that the probes see."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from underpar.core.world import World
from underpar.evaluate.adaptation import Adaptation, DocumentTTT, PhasedTTT, SequentialTTT
from underpar.evaluate.adapted import AdaptiveScorer, Compiler
from underpar.evaluate.scorers import adapted_charges, adaptive_scorer
from underpar.evaluate.windows import Window
from underpar.model.compiled import compile_model
from underpar.model.gpt import GPT
from underpar.referee.ranks import on_ranks

GENERATIONS = 3
"""Documents that follow each other in a slot, of a stretch in the small."""
SMALL_CHUNKS, SMALL_ROWS = 8, 4
"""Chunks of SGD in a stretch in the small, and rows in each, which the processes share."""


@dataclass(frozen=True)
class AdaptedPredictor:
    """A model under test-time training; every question begins with the weights of the artifact. Compiled on CUDA, as the
    score was: once, for all questions.
    """

    model: GPT
    adaptation: Adaptation
    vocab_size: int
    bos_id: int
    device: str = "cpu"
    progress: Callable[[float], None] | None = None
    made: list[AdaptiveScorer] = field(default_factory=list, repr=False)
    """The scorer, once something was asked; copies share it."""

    warms_up: ClassVar[bool] = True
    takes_world: ClassVar[bool] = True

    @property
    def window(self) -> Window:
        """What the model sees of a document at a time."""
        return self.adaptation.reach()

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        if not self.made:
            compiler = None if self.device == "cpu" else compile_model
            self.made.append(self._scorer(self.model, self.adaptation, World(device=self.device), compiler))
        return adapted_charges(self.made[0], tokens, bos_id=self.bos_id, progress=self.progress)

    def charges_after(self, before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Another text is scored first, by the same model in memory."""
        self.charges(before)
        return self.charges(tokens)

    def charges_on(self, processes: int, tokens: np.ndarray) -> np.ndarray:
        """The work shared by ranks, each with a model of its own, under the adaptation in the small: see `in_the_small`."""
        small = in_the_small(self.adaptation, tokens, self.bos_id)

        def share(world: World) -> np.ndarray:
            model = self.model if world.is_main else copy.deepcopy(self.model)
            return adapted_charges(self._scorer(model, small, world), tokens, bos_id=self.bos_id)

        return on_ranks(processes, self.device, share)

    def _scorer(
        self, model: GPT, adaptation: Adaptation, world: World, compiler: Compiler | None = None
    ) -> AdaptiveScorer:
        return adaptive_scorer(adaptation, model, bos_id=self.bos_id, world=world, compiler=compiler)

    def work(self, tokens: np.ndarray) -> str:
        """What there is to share."""
        small, count = in_the_small(self.adaptation, tokens, self.bos_id), int((tokens == self.bos_id).sum())
        match small:
            case PhasedTTT():
                return (
                    f"{count} documents in {small.slots} slots and, after parts of the first {small.prefix_documents}, SGD in "
                    f"chunks of {small.sgd.chunk_tokens} tokens (in the small)"
                )
            case DocumentTTT():
                return f"{count} documents in {small.slots} slots (in the small)"
            case SequentialTTT():
                return f"stretches of {small.chunk_tokens} tokens and the SGD after each (in the small)"
        return "the stretch"


def in_the_small(adaptation: Adaptation, tokens: np.ndarray, bos_id: int) -> Adaptation:
    """The same adaptation with its counts scaled down to a stretch of text, so that everything in it happens there.

    Slots are so few that documents inherit, phases end within the documents of the stretch, and a round of SGD has several
    chunks. Rates, ranks and contexts of adapters stay. tokens: uint16 (N,), N >= 16.
    """
    small = copy.deepcopy(adaptation)
    documents = max(1, int((tokens == bos_id).sum()))
    row = max(2, len(tokens) // (SMALL_CHUNKS * SMALL_ROWS))
    if isinstance(small, DocumentTTT):
        small.slots = min(small.slots, max(1, documents // GENERATIONS))
    if isinstance(small, PhasedTTT):
        small.prefix_documents = min(small.prefix_documents, max(1, documents - 1))
        small.phases = min(small.phases, max(1, small.prefix_documents))
        small.sgd.context = min(small.sgd.context, row)
        small.sgd.chunk_tokens = small.sgd.context * min(SMALL_ROWS, small.sgd.chunk_tokens // small.sgd.context)
    if isinstance(small, SequentialTTT):
        small.context = min(small.context, row)
        small.stride = min(small.stride, max(1, small.context // 2))
        small.chunk_tokens = small.context * min(SMALL_ROWS, small.chunk_tokens // small.context)
    return small.frozen()
