"""What scoring with test-time training gives and is given, whatever it trains."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from underpar.core.errors import DataError
from underpar.core.units import BITS_PER_NAT
from underpar.core.world import World
from underpar.data.validation import ValStream
from underpar.evaluate.score import LossFunction, Score, add_up

Compiler = Callable[[nn.Module], Callable[..., Tensor]]
"""Makes a compiled twin of a module that is called as (tokens, targets, context, ...)."""

REPORT_SECONDS = 2.0


class Running(NamedTuple):
    """How far scoring is, of this process's share."""

    done: float
    bpb: float
    seconds_left: float


Watcher = Callable[[Running], None]


@dataclass(frozen=True, eq=False)
class AdaptedCharges:
    """What adaptive scoring found, the same on every process."""

    nats: np.ndarray
    """(targets,) float64."""
    eval_seconds: float
    """From the first token to the last charge. Compilation and warm-up, on random tokens, are before it."""
    warm_up_seconds: float
    planned_seconds: float
    """What the warm-up's rates promised."""
    measured_seconds: dict[str, float]
    """The warm-up's rates: what one pass of each kind takes. Empty where nothing was measured."""
    plain_targets: int
    """Charged without adaptation, because the budget was planned or found too small for them."""

    def score(self, stream: ValStream) -> Score:
        return add_up(self.nats, stream, self.eval_seconds)

    def to_json(self) -> dict[str, Any]:
        return {
            "warm_up_seconds": self.warm_up_seconds,
            "planned_seconds": self.planned_seconds,
            "measured_seconds": self.measured_seconds,
            "plain_targets": self.plain_targets,
        }


class AdaptiveScorer(Protocol):
    """Made by `scorers.adaptive_scorer`; reads its settings when it is made."""

    def charge(
        self, stream: ValStream, *, budget_seconds: float | None = None, watcher: Watcher | None = None
    ) -> AdaptedCharges:
        """Charge every target once. The model's weights are as before when it returns. Collective.

        budget_seconds: planned for with the warm-up's rates; what does not fit is charged without adaptation, and counted.
        Raises DataError for a stream without documents, ScoreError as `charge` does.
        """
        ...


class Parts(NamedTuple):
    """What every adaptive scorer is made of.

    compiler: makes the fast twin of an adapted forward, for which shapes are kept few; None runs it as it is.
    plain: the model as a loss function without adaptation, compiled or not.
    """

    bos_id: int
    world: World
    compiler: Compiler | None
    plain: LossFunction


def check_documents(stream: ValStream) -> None:
    """Raise DataError unless the stream is whole documents, each behind its start."""
    if len(stream.tokens) < 2:
        raise DataError(f"a stream of {len(stream.tokens)} tokens predicts nothing; give two at least")
    if len(stream.document_starts) == 0 or stream.document_starts[0] != 0:
        raise DataError(
            "the stream does not begin with a document start, so its documents are not known; prepare the text again, "
            "with a BOS before every document"
        )


class Meter:
    """Tells a watcher, every two seconds, what has been charged so far."""

    def __init__(self, watcher: Watcher | None, stream: ValStream, targets: int, nats_so_far: Callable[[], np.ndarray]):
        self._watcher, self._targets, self._nats_so_far = watcher, max(1, targets), nats_so_far
        self._bytes = stream.byte_counts[1:].astype(np.int64)
        self._began = self._told = time.perf_counter()
        self._done = 0

    def __call__(self, targets: int) -> None:
        """`targets` more are charged."""
        self._done += targets
        now = time.perf_counter()
        if self._watcher is None or now - self._told < REPORT_SECONDS:
            return
        self._told = now
        nats = self._nats_so_far()
        size = int(self._bytes[nats > 0].sum())
        share = min(1.0, self._done / self._targets)
        left = (now - self._began) * (1 - share) / share
        self._watcher(Running(share, float(nats.sum()) * BITS_PER_NAT / max(1, size), left))
