"""What the probes examine: anything that is given a token stream and answers with the charge of every position.

A probe sees the stream that goes in and the charges that come out, so the same probes judge an artifact of ours, a Python
object and a foreign command. What more a predictor can do, a probe finds out with isinstance: each ability is a protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from underpar.referee.charges import ChargeFault, checked


class Predictor(Protocol):
    """A black box with one answer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def bos_id(self) -> int | None:
        """The token that starts a document; None where the stream has none."""
        ...

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        """tokens: uint16 (N,), tokens[0] known. Returns float64 (N - 1,) nats: charge i is for tokens[i + 1].

        Starts from the same state at every call. A charge may be infinite; NaN stands for the tail that published
        evaluations leave out. Raises ScoreError for an answer that is no list of charges.
        """
        ...


@runtime_checkable
class Sweepable(Protocol):
    """The charges of all tokens at one place can be asked for directly."""

    def sweep(self, prefix: np.ndarray) -> np.ndarray:
        """prefix: uint16 (T,). Returns float64 (V, T) nats: the charge of every token after prefix[: t + 1]."""
        ...


@runtime_checkable
class Replayable(Protocol):
    """It can be started again for one question."""

    def fresh_charges(self, tokens: np.ndarray) -> np.ndarray:
        """`charges`, by a process that has done nothing else."""
        ...


@runtime_checkable
class Warmable(Protocol):
    """It can be given other tokens first, in the same process."""

    @property
    def warms_up(self) -> bool: ...

    def charges_after(self, before: np.ndarray, tokens: np.ndarray) -> np.ndarray: ...


@runtime_checkable
class Scalable(Protocol):
    """The number of processes that share the work can be chosen."""

    @property
    def takes_world(self) -> bool: ...

    def charges_on(self, processes: int, tokens: np.ndarray) -> np.ndarray: ...

    def work(self, tokens: np.ndarray) -> str:
        """What the processes share, in words."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """It says the whole distribution of a token before the token is sent to it."""

    @property
    def form(self) -> str:
        """'stepwise', or 'whole' where the whole stream is handed over at once."""
        ...

    def distributions(self, tokens: np.ndarray) -> np.ndarray:
        """Probabilities float64 (N - 1, V)."""
        ...


def is_stepwise(predictor: Predictor) -> bool:
    """Whether the future of a token is out of the predictor's reach by construction."""
    return isinstance(predictor, Stepwise) and predictor.form == "stepwise"


@dataclass(frozen=True)
class CallablePredictor:
    """A function of this process. For predictors that are trusted to be what they are: studies, tests, examples."""

    function: Callable[[np.ndarray], np.ndarray]
    vocab_size: int
    bos_id: int | None

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        return checked(self.function(tokens.copy()), len(tokens) - 1)


@dataclass(frozen=True)
class ObjectPredictor:
    """Objects of this process with `charges(tokens)` and perhaps `warm_up(tokens)`, a new one for every question."""

    factory: Callable[[], Any]
    vocab_size: int
    bos_id: int | None

    @property
    def warms_up(self) -> bool:
        return hasattr(self.factory, "warm_up")

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        return checked(self.factory().charges(tokens.copy()), len(tokens) - 1)

    def charges_after(self, before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        one = self.factory()
        one.warm_up(before.copy())
        return checked(one.charges(tokens.copy()), len(tokens) - 1)


@dataclass(frozen=True)
class StepPredictor:
    """Objects of this process with `step(token)`, a new one for every stream."""

    factory: Callable[[], Stepper]
    vocab_size: int
    bos_id: int | None
    form: str = "stepwise"

    def distributions(self, tokens: np.ndarray) -> np.ndarray:
        one = self.factory()
        return np.stack([distribution(one.step(int(token)), self.vocab_size) for token in tokens[:-1]])

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        rows = self.distributions(tokens)
        with np.errstate(divide="ignore"):
            return -np.log(rows[np.arange(len(rows)), tokens[1:].astype(np.int64)])


class Stepper(Protocol):
    """The stepwise interface of docs/predictor.md."""

    def step(self, token: int) -> np.ndarray:
        """Take the next token of the stream; answer with the probabilities (V,) of the one after it."""
        ...


def distribution(values: np.ndarray, vocab_size: int) -> np.ndarray:
    """One answer of a stepwise predictor, float64 (V,). Raises ChargeFault when it is no list of probabilities."""
    row = np.asarray(values, dtype=np.float64)
    if row.shape != (vocab_size,) or not np.all(row >= 0) or not np.all(np.isfinite(row)):
        raise ChargeFault("form", f"step gave no {vocab_size:,} probabilities of at least 0, but shape {row.shape}")
    return row
