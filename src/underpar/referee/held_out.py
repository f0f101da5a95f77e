"""What a shard stands for: the bytes of each of its tokens, from the raw text where there is one, else from the tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from underpar.core.errors import DataError
from underpar.data.bytecount import byte_lut, count_target_bytes
from underpar.data.tokenizer_base import Tokenizer
from underpar.referee.retokenise import HeldOut, retokenise


@dataclass(frozen=True)
class ShardBytes:
    """Bytes of a shard's tokens. `counts` is None where nothing says."""

    counts: np.ndarray | None
    """int64 (N,)"""
    source: str
    """'raw text', 'tokenizer' or 'nothing'."""
    total: int | None
    first_different: int | None = None
    """Where the shard stops being the tokens of the raw text."""

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source, "bytes": self.total, "first_different": self.first_different}


def shard_bytes(
    tokens: np.ndarray, tokenizer: Tokenizer | None, text: Path | None, progress: Callable[[int], None]
) -> tuple[ShardBytes, HeldOut | None]:
    """The bytes of a shard's tokens, and the raw text tokenised anew where it was given.

    Raises DataError when the text is damaged, or given without a tokenizer.
    """
    if text is not None:
        if tokenizer is None:
            raise DataError("the raw text needs its tokenizer to be compared with the shard; add --tokenizer")
        held_out = retokenise(text, tokenizer, progress)
        made = held_out.stream.tokens
        shorter = min(len(made), len(tokens))
        wrong = np.flatnonzero(made[:shorter] != tokens[:shorter])
        if len(wrong) or len(made) != len(tokens):
            first = int(wrong[0]) if len(wrong) else shorter
            return ShardBytes(None, "raw text", held_out.text_bytes, first), held_out
        return ShardBytes(held_out.stream.byte_counts.astype(np.int64), "raw text", held_out.text_bytes), held_out
    if tokenizer is None:
        return ShardBytes(None, "nothing", None), None
    try:
        table = byte_lut(tokenizer)
    except DataError:  # CaseOps: the bytes of a token depend on its neighbours
        return ShardBytes(None, "nothing", None), None
    counts = np.zeros(len(tokens), dtype=np.int64)
    counts[1:] = count_target_bytes(tokens[:-1], tokens[1:], table)
    return ShardBytes(counts, "tokenizer", int(counts.sum())), None
