"""Facts about a batch that more than one component needs. Document starts live here and nowhere else."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Context(NamedTuple):
    """What the model may know of a batch besides its tokens.

    document_start: (B, T) bool, True at the first token of a document and at the first of a row. A component that looks
        back one token masks with it, or with `nothing_before`.
    positions: (T,) int32, for rotary embeddings: distance from the start of the segment that attention sees. Equal in all rows.
    cu_seqlens: (S + 1,) int32 offsets into the flattened row at which attention starts anew, padded with T; or None when
        attention spans the whole row, across documents.
    max_seqlen: the longest segment that attention may meet.
    """

    document_start: Tensor
    positions: Tensor
    cu_seqlens: Tensor | None
    max_seqlen: int

    def to(self, device: str) -> "Context":
        """The same facts on another device; the copy does not wait where its source is pinned."""
        move = lambda t: t.to(device, non_blocking=True) if isinstance(t, Tensor) else t  # noqa: E731
        return Context(*map(move, self))  # type: ignore[arg-type]

    def nothing_before(self) -> Tensor:
        """(B, T) bool: tokens whose predecessor attention does not see either. Dense rows see across documents."""
        if self.cu_seqlens is not None:
            return self.document_start
        first = torch.zeros_like(self.document_start)
        first[:, 0] = True
        return first


class Batch(NamedTuple):
    """inputs, targets: (B, T) int64; targets are the inputs moved on by one token of the stream."""

    inputs: Tensor
    targets: Tensor
    context: Context


def row_context(inputs: Tensor, bos_id: int) -> Context:
    """Context of dense rows: attention sees its whole row; document starts are known all the same."""
    start = inputs == bos_id
    start[:, 0] = True
    length = inputs.shape[1]
    return Context(start, torch.arange(length, dtype=torch.int32, device=inputs.device), None, length)


def packed_context(
    inputs: Tensor, bos_id: int, max_seqlen: int, *, span_tokens: int | None = None, pad_to: int = 64
) -> Context:
    """Context of one packed row (1, T): attention restarts at each document and every `max_seqlen` tokens within one.

    The number of offsets is padded to a multiple of `pad_to` with T (empty segments), so that a compiled model meets few
    shapes. inputs: (1, T) on the CPU. span_tokens: the row is made of stretches of that length that do not follow each
    other in the text, so that each begins a segment.
    """
    length = inputs.shape[1]
    start = inputs == bos_id
    start[:, :: span_tokens or length] = True
    heads = np.flatnonzero(start[0].numpy())
    bounds = np.append(heads, length)
    cuts = np.concatenate([np.arange(a, b, max_seqlen) for a, b in pairwise(bounds)])
    size = -(-(len(cuts) + 1) // pad_to) * pad_to
    offsets = np.full(size, length, dtype=np.int32)
    offsets[: len(cuts)] = cuts
    positions = np.arange(length, dtype=np.int32) - np.repeat(cuts, np.diff(np.append(cuts, length))).astype(np.int32)
    return Context(start, torch.from_numpy(positions), torch.from_numpy(offsets), max_seqlen)
