"""The score, added up again: one charge per position, summed here and not by the code that is being judged."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from underpar.core.units import BITS_PER_NAT
from underpar.referee.predictor import Predictor
from underpar.referee.retokenise import HeldOut


@dataclass(frozen=True)
class Ledger:
    """What the predictor paid for the held-out text."""

    bits: float
    tokens: int
    """Charged positions: every token of the stream but the first."""
    bytes: int
    documents: int
    uncharged_documents: int
    """Documents with text of which no position was charged."""
    largest_charge_nats: float

    @property
    def bpb(self) -> float:
        return self.bits / self.bytes

    @property
    def loss_nats(self) -> float:
        """Mean per charged token."""
        return self.bits / BITS_PER_NAT / self.tokens

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"bpb": self.bpb, "loss_nats": self.loss_nats}


def charge(predictor: Predictor, held_out: HeldOut) -> tuple[Ledger, np.ndarray]:
    """Charge every position of the held-out stream once. Returns the sums and the charges, float64 (N - 1,) nats.

    Raises what the predictor raises: ScoreError when a charge is missing, doubled, negative or not finite.
    """
    tokens = held_out.stream.tokens
    charges = predictor.charges(tokens)
    starts = held_out.stream.document_starts
    ends = np.append(starts[1:], len(tokens))
    charged = ends - np.maximum(starts, 1)
    ledger = Ledger(
        bits=math.fsum(charges) * BITS_PER_NAT,
        tokens=len(charges),
        bytes=held_out.text_bytes,
        documents=len(starts),
        uncharged_documents=int(((charged <= 0) & (held_out.document_bytes > 0)).sum()),
        largest_charge_nats=float(charges.max()),
    )
    return ledger, charges


@dataclass(frozen=True)
class ProgramLedger:
    """The charges of a program added up here, and not by the program."""

    bits: float
    tokens: int
    """Charged positions."""
    uncharged_tokens: int
    """Positions at the end that the program left out."""
    infinite: int
    stream_tokens: int
    documents: int
    bytes: int | None
    """Of the charged tokens; None where nothing says."""
    largest_charge_nats: float

    @property
    def bpb(self) -> float | None:
        return self.bits / self.bytes if self.bytes else None

    @property
    def loss_nats(self) -> float:
        """Mean per charged token."""
        return self.bits / BITS_PER_NAT / self.tokens

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"bpb": self.bpb, "loss_nats": self.loss_nats}


def add_up(charges: np.ndarray, tokens: np.ndarray, bos_id: int | None, counts: np.ndarray | None) -> ProgramLedger:
    """charges: float64 (N - 1,) nats, NaN where uncharged. counts: int64 (N,) bytes of each token, or None."""
    charged = ~np.isnan(charges)
    return ProgramLedger(
        bits=math.fsum(charges[charged]) * BITS_PER_NAT,
        tokens=int(charged.sum()),
        uncharged_tokens=int((~charged).sum()),
        infinite=int(np.isinf(charges[charged]).sum()),
        stream_tokens=len(tokens),
        documents=1 if bos_id is None else int((tokens == bos_id).sum()),
        bytes=None if counts is None else int(counts[1:][charged].sum()),
        largest_charge_nats=float(charges[charged].max()),
    )
