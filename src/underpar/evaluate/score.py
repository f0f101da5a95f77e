"""The score: bits over bytes, every token exactly once. Validation, final evaluation and the referee all call this."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from underpar.core.errors import ScoreError
from underpar.core.units import BITS_PER_NAT
from underpar.core.world import World
from underpar.data.context import Context, row_context
from underpar.data.validation import ValStream
from underpar.evaluate.windows import Span, Window

LossFunction = Callable[[Tensor, Tensor, Context], Tensor]
"""(B, T) int64 tokens, (B, T) int64 targets, their context -> (B, T) float32 nats."""


ROUNDING_NATS = 1e-5
"""A certain token may come out this far below zero: two roundings of a float32 logarithm near the soft-cap. Counted as zero."""


@dataclass(frozen=True)
class Score:
    """What a predictor costs on a text. bits and bytes are kept; the ratio is computed."""

    bits: float
    bytes: int
    tokens: int
    documents: int
    eval_seconds: float
    document_bits: np.ndarray
    """(documents,) float64."""
    document_bytes: np.ndarray
    """(documents,) int64."""
    document_tokens: np.ndarray
    """(documents,) int64, scored targets."""

    @property
    def bpb(self) -> float:
        """Bits per byte of the original UTF-8 text."""
        return self.bits / self.bytes

    @property
    def loss_nats(self) -> float:
        """Mean nats per scored token."""
        return self.bits / BITS_PER_NAT / self.tokens

    def to_json(self) -> dict[str, Any]:
        plain = {k: v for k, v in asdict(self).items() if not isinstance(v, np.ndarray)}
        return plain | {
            "bpb": self.bpb,
            "loss_nats": self.loss_nats,
            "tokens_per_second": self.tokens / self.eval_seconds if self.eval_seconds else None,
        }


@torch.no_grad()
def score(
    losses_of: LossFunction,
    stream: ValStream,
    window: Window,
    *,
    bos_id: int,
    world: World | None = None,
    batch_tokens: int = 65_536,
    progress: Callable[[float], None] | None = None,
) -> Score:
    """Charge every target of the stream once and add up bits and bytes.

    Args:
        losses_of: the model, or anything that returns nats per position.
        stream: tokens of whole documents in order, and the UTF-8 bytes each stands for.
        window: how the stream is cut. Attention spans a window, across documents.
        batch_tokens: tokens of one forward pass on this process.
        progress: called with the fraction done.
    Raises:
        ScoreError: a target was charged twice or never, a charge is negative, infinite or NaN, or bytes do not add up.
    Cost: one forward pass over the stream for `Flat`, about context / stride for `Sliding`. Work is split over processes;
    sums are float64.
    """
    world = world or World()
    began = time.perf_counter()
    targets = len(stream.tokens) - 1
    spans = list(window.spans(targets))
    mine = [spans[i] for i in world.share(len(spans))]
    charges = np.zeros(targets, dtype=np.float64)
    counts = np.zeros(targets, dtype=np.int32)
    rows = max(1, batch_tokens // window.context)
    pending: tuple[list[Span], Tensor] | None = None
    for first in range(0, len(mine), rows):
        batch = mine[first : first + rows]
        losses = _losses(losses_of, stream.tokens, batch, window.context, rows, bos_id, world)
        if pending:  # booked one pass late, so that the host works while the device does
            _book(*pending, charges, counts)
        pending = (batch, losses)
        if progress:
            progress(min(1.0, (first + rows) / len(mine)))
    if pending:
        _book(*pending, charges, counts)
    if world.size > 1:
        charges = _sum_over_ranks(charges, world)
        counts = _sum_over_ranks(counts, world)
    _check_ledger(charges, counts)
    return _add_up(charges, stream, time.perf_counter() - began)


def _losses(
    losses_of: LossFunction, tokens: np.ndarray, spans: list[Span], context: int, rows: int, bos_id: int, world: World
) -> Tensor:
    """Nats of `rows` rows, padded to a constant shape so that a compiled model meets only one. (rows, context) float32."""
    batch = np.full((rows, context + 1), bos_id, dtype=np.int64)
    for row, span in enumerate(spans):
        batch[row, : span.stop - span.start + 1] = tokens[span.start : span.stop + 1]
    both = torch.from_numpy(batch).to(world.device, non_blocking=True)
    inputs, wanted = both[:, :-1].contiguous(), both[:, 1:].contiguous()
    return losses_of(inputs, wanted, row_context(inputs, bos_id))


def _book(spans: list[Span], losses: Tensor, charges: np.ndarray, counts: np.ndarray) -> None:
    found = losses.double().cpu().numpy()
    for row, span in enumerate(spans):
        charges[span.score_from : span.stop] += found[row, span.score_from - span.start : span.stop - span.start]
        counts[span.score_from : span.stop] += 1


def _sum_over_ranks(values: np.ndarray, world: World) -> np.ndarray:
    return world.sum_(torch.from_numpy(values).to(world.device)).cpu().numpy()


def _check_ledger(charges: np.ndarray, counts: np.ndarray) -> None:
    wrong = np.flatnonzero(counts != 1)
    if len(wrong):
        raise ScoreError(
            f"{len(wrong)} of {len(counts)} tokens were not scored exactly once; the first is {wrong[0]}, "
            f"scored {counts[wrong[0]]} times"
        )
    bad = np.flatnonzero(~(np.isfinite(charges) & (charges >= -ROUNDING_NATS)))
    if len(bad):
        raise ScoreError(f"token {bad[0]} costs {charges[bad[0]]} nats; a charge must be finite and not negative")
    np.maximum(charges, 0.0, out=charges)


def _add_up(charges: np.ndarray, stream: ValStream, seconds: float) -> Score:
    """Per document and in all. A document's targets are its own tokens, its BOS included where it is predicted."""
    starts = stream.document_starts
    target_bytes = stream.byte_counts[1:].astype(np.int64)
    document_of = np.searchsorted(starts, np.arange(1, len(stream.tokens)), side="right") - 1
    size = len(starts)
    bits = np.bincount(document_of, charges * BITS_PER_NAT, size)
    document_bytes = np.bincount(document_of, target_bytes, size).astype(np.int64)
    tokens = np.bincount(document_of, minlength=size)
    total = int(target_bytes.sum())
    if int(document_bytes.sum()) != total or total == 0:
        raise ScoreError(f"the scored tokens stand for {total} bytes, their documents for {int(document_bytes.sum())}")
    return Score(
        bits=float(charges.sum() * BITS_PER_NAT),
        bytes=total,
        tokens=len(charges),
        documents=size,
        eval_seconds=seconds,
        document_bits=bits,
        document_bytes=document_bytes,
        document_tokens=tokens,
    )
