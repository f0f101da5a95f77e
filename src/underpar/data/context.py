"""Facts about a batch that more than one component needs. Document starts live here and nowhere else."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Context(NamedTuple):
    """What the model may know of a batch besides its tokens.

    document_start: (B, T) bool, True at the first token of a document and at the first of a row. A component that looks
        back one token multiplies by `~document_start`.
    cu_seqlens: (S + 1,) int32 offsets into the flattened row at which attention starts anew, padded with T; or None when
        attention spans the whole row, across documents.
    max_seqlen: the longest segment that attention may meet.
    """

    document_start: Tensor
    cu_seqlens: Tensor | None
    max_seqlen: int

    def positions(self) -> Tensor:
        """(B, T) int64: distance of each token from the start of its document (or of its row)."""
        index = torch.arange(self.document_start.shape[1], device=self.document_start.device)
        starts = torch.where(self.document_start, index, torch.zeros_like(index))
        return index - torch.cummax(starts, dim=1).values


class Batch(NamedTuple):
    """inputs, targets: (B, T) int64; targets are the inputs moved on by one token of the stream."""

    inputs: Tensor
    targets: Tensor
    context: Context


def row_context(inputs: Tensor, bos_id: int) -> Context:
    """Context of dense rows: attention sees its whole row; document starts are known all the same."""
    start = inputs == bos_id
    start[:, 0] = True
    return Context(start, None, inputs.shape[1])


def packed_context(inputs: Tensor, bos_id: int, max_seqlen: int, pad_to: int = 64) -> Context:
    """Context of one packed row (1, T): attention restarts at each document and every `max_seqlen` tokens within one.

    The number of offsets is padded to a multiple of `pad_to` with T (empty segments), so that a compiled model meets few
    shapes. inputs: (1, T) on the CPU.
    """
    start = inputs == bos_id
    start[:, 0] = True
    length = inputs.shape[1]
    heads = np.flatnonzero(start[0].numpy())
    bounds = np.append(heads, length)
    cuts = np.concatenate([np.arange(a, b, max_seqlen) for a, b in pairwise(bounds)])
    size = -(-(len(cuts) + 1) // pad_to) * pad_to
    offsets = np.full(size, length, dtype=np.int32)
    offsets[: len(cuts)] = cuts
    return Context(start, torch.from_numpy(offsets), max_seqlen)
