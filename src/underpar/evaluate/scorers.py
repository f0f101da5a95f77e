"""Scoring with test-time training: charges of every token of a stream, each booked before the model learns from it."""

from collections.abc import Callable

import numpy as np

from underpar.core.errors import ConfigError
from underpar.core.world import World
from underpar.data.validation import ValStream
from underpar.evaluate.adaptation import Adaptation, CacheOnly, DocumentTTT, SequentialTTT
from underpar.evaluate.adapted import AdaptiveScorer, Compiler, Parts
from underpar.evaluate.ngram_cache import CachedScorer
from underpar.evaluate.phased import DocumentScorer
from underpar.evaluate.score import LossFunction
from underpar.evaluate.sequential import SequentialScorer
from underpar.model.gpt import GPT


def adaptive_scorer(
    adaptation: Adaptation,
    model: GPT,
    *,
    bos_id: int,
    world: World | None = None,
    compiler: Compiler | None = None,
    plain: LossFunction | None = None,
) -> AdaptiveScorer:
    """The scorer of an adaptation for a model. Nothing runs yet.

    compiler: see `Parts`. plain: the model as a loss function, None for the model itself.
    """
    parts = Parts(bos_id, world or World(), compiler, plain or model)
    match adaptation:
        case DocumentTTT():
            return DocumentScorer(adaptation, model, parts)
        case SequentialTTT():
            return SequentialScorer(adaptation, model, parts)
        case CacheOnly():
            return CachedScorer(adaptation, parts)
    raise ConfigError(
        f"nothing scores with {type(adaptation).__name__}; valid: DocumentTTT, PhasedTTT, SequentialTTT, CacheOnly"
    )


def adapted_charges(
    scorer: AdaptiveScorer, tokens: np.ndarray, *, bos_id: int, progress: Callable[[float], None] | None = None
) -> np.ndarray:
    """Nats of every token after the first under test-time training, in stream order, from the same state at every call.

    tokens: uint16 (N,), a BOS first. Returns float64 (N - 1,). progress: called with the fraction done.
    """
    starts = np.flatnonzero(tokens == bos_id).astype(np.int64)
    stream = ValStream(tokens, np.ones(len(tokens), dtype=np.int32), starts)
    watcher = None if progress is None else lambda running: progress(running.done)
    return scorer.charge(stream, watcher=watcher).nats
