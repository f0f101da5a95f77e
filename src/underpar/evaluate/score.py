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
from underpar.data.context import Context, packed_context, row_context
from underpar.data.validation import ValStream
from underpar.evaluate.windows import Span, Window

LossFunction = Callable[[Tensor, Tensor, Context], Tensor]
"""(B, T) int64 tokens, (B, T) int64 targets, their context -> (B, T) float32 nats."""


def batch_tokens_on(device: str) -> int:
    """Tokens of a forward pass that scores: a CPU is fastest with batches that stay in its cache, a GPU with large ones."""
    return 2048 if device == "cpu" else 65_536


ROUNDING_NATS = 1e-5
"""A certain token may come out this far below zero: two roundings of a float32 logarithm near the soft-cap. Counted as zero."""


@dataclass(frozen=True, eq=False)
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
def charge(
    losses_of: LossFunction,
    stream: ValStream,
    window: Window,
    *,
    bos_id: int,
    world: World | None = None,
    batch_tokens: int = 65_536,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Nats of every target of the stream, each charged once: (len(stream.tokens) - 1,) float64, the same on every process.

    Args:
        losses_of: the model, or anything that returns nats per position.
        stream: tokens of whole documents in order, and the UTF-8 bytes each stands for.
        window: how the stream is cut. Attention spans a window, across documents unless the window is packed.
        batch_tokens: tokens of one forward pass on this process.
        progress: called with the fraction done.
    Raises:
        ScoreError: a target was charged twice or never, or a charge is negative, infinite or NaN.
    Cost: one forward pass over the stream for `Flat` and `Documents`, about context / stride for `Sliding`. Work is split
    over processes; sums are float64.
    """
    world = world or World()
    spans = list(window.spans(len(stream.tokens) - 1, stream.document_starts))
    mine = [spans[i] for i in world.share(len(spans))]
    ledger = Ledger(len(stream.tokens) - 1)
    charge_spans(
        losses_of, stream, window, mine, ledger, bos_id=bos_id, device=world.device, batch_tokens=batch_tokens,
        progress=progress,
    )  # fmt: skip
    return ledger.closed(world)


class Ledger:
    """Nats of every target of a stream, and how often it was charged; a process books its own share."""

    def __init__(self, targets: int) -> None:
        self.charges = np.zeros(targets, dtype=np.float64)
        self.counts = np.zeros(targets, dtype=np.int32)

    def book(self, where: slice | np.ndarray, nats: np.ndarray) -> None:
        self.charges[where] += nats
        self.counts[where] += 1

    def closed(self, world: World) -> np.ndarray:
        """The charges of all processes together. Collective. Raises ScoreError as `charge` does."""
        if world.size > 1:
            self.charges, self.counts = (_sum_over_ranks(x, world) for x in (self.charges, self.counts))
        _check_ledger(self.charges, self.counts)
        return self.charges


@torch.no_grad()
def charge_spans(
    losses_of: LossFunction,
    stream: ValStream,
    window: Window,
    spans: list[Span],
    ledger: Ledger,
    *,
    bos_id: int,
    device: str,
    batch_tokens: int,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Charge some spans of `window` to a ledger, as `charge` does with all of them."""
    row_tokens = max(batch_tokens, window.context) if window.shares_rows else window.context
    rows = _packed_rows(spans, stream.document_starts, row_tokens) if window.shares_rows else [[span] for span in spans]
    rows_at_once = 1 if window.is_packed else max(1, batch_tokens // row_tokens)
    pending: tuple[list[list[Span]], Tensor] | None = None
    for first in range(0, len(rows), rows_at_once):
        batch = rows[first : first + rows_at_once]
        inputs, wanted, context = _inputs(stream.tokens, batch, (rows_at_once, row_tokens), window, bos_id, device)
        losses = losses_of(inputs, wanted, context)
        if pending:  # booked one pass late, so that the host works while the device does
            _book(*pending, ledger)
        pending = (batch, losses)
        if progress:
            progress(min(1.0, (first + rows_at_once) / len(rows)))
    if pending:
        _book(*pending, ledger)


def score(losses_of: LossFunction, stream: ValStream, window: Window, *, bos_id: int, **options: Any) -> Score:
    """What a predictor costs on a text: `charge`, whose arguments these are, added up over bits and bytes.

    Raises ScoreError as `charge` does, and when bytes do not add up.
    """
    began = time.perf_counter()
    charges = charge(losses_of, stream, window, bos_id=bos_id, **options)
    return add_up(charges, stream, time.perf_counter() - began)


def _packed_rows(spans: list[Span], document_starts: np.ndarray, row_tokens: int) -> list[list[Span]]:
    """Consecutive spans that share a row. A row ends before a document that does not fit, so that what looks back one token
    finds it wherever the rows are cut; only a document longer than a row is cut itself.
    """
    begins = set(document_starts.tolist())
    rows: list[list[Span]] = []
    used = row_tokens
    for index, span in enumerate(spans):
        needed = span.stop - span.start
        if span.start in begins:  # the whole document, as far as it is in hand
            last = next((i for i in range(index + 1, len(spans)) if spans[i].start in begins), len(spans)) - 1
            needed = min(spans[last].stop - span.start, row_tokens)
        if used + needed > row_tokens:
            rows.append([])
            used = 0
        rows[-1].append(span)
        used += span.stop - span.start
    return rows


def _inputs(
    tokens: np.ndarray, rows: list[list[Span]], shape: tuple[int, int], window: Window, bos_id: int, device: str
) -> tuple[Tensor, Tensor, Context]:
    """Tokens, targets and context of the rows, padded to a constant shape so that a compiled model meets only one."""
    padding = 0 if bos_id else 1  # any token that starts no document
    batch = np.full((shape[0], shape[1] + 1), padding, dtype=np.int64)
    for row, spans in enumerate(rows):
        start, stop = spans[0].start, spans[-1].stop
        batch[row, : stop - start + 1] = tokens[start : stop + 1]
    both = torch.from_numpy(batch)
    inputs, wanted = both[:, :-1].contiguous(), both[:, 1:].contiguous()
    context = packed_context(inputs, bos_id, window.context) if window.is_packed else row_context(inputs, bos_id)
    return inputs.to(device), wanted.to(device), context.to(device)


def _book(rows: list[list[Span]], losses: Tensor, ledger: Ledger) -> None:
    found = losses.double().cpu().numpy()
    for row, spans in enumerate(rows):
        origin = spans[0].start
        for span in spans:
            nats = found[row, span.score_from - origin : span.stop - origin]
            ledger.book(slice(span.score_from, span.stop), nats)


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


def add_up(charges: np.ndarray, stream: ValStream, seconds: float) -> Score:
    """Charges per document and in all. A document's targets are its own tokens, its BOS included where it is predicted."""
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
