"""Bytes per token from the vocabulary alone, for downloaded shards that have no byte sidecar.

The rule of the published trainers: a piece counts its UTF-8 bytes without its leading space; the space is one byte more,
unless the token before is a boundary (BOS, pad, eos, unk), where no space was written. Byte pieces count one each.

It is right for models that keep spaces as they are. It counts the text as the model wrote it down, so that a model which
rewrites characters (nmt_nfkc) is off by what it rewrote; and it cannot know which letters were capitals, so CaseOps
vocabularies are refused: they need a sidecar.
Source: the byte table of parameter-golf's baseline trainer.
"""

from dataclasses import dataclass

import numpy as np

from underpar.core.errors import DataError
from underpar.data.sentencepiece_models import SPACE, CaseOpsTokenizer, SentencePieceTokenizer
from underpar.data.tokenizer_base import Tokenizer


@dataclass(frozen=True, eq=False)
class ByteLut:
    """Three facts per token id."""

    base_bytes: np.ndarray
    """int16 (V,): UTF-8 bytes without a leading space; 0 for special tokens."""
    has_leading_space: np.ndarray
    """bool (V,): whether the piece begins with a space."""
    is_boundary: np.ndarray
    """bool (V,): whether the token is special, so that a space right after it was never in the text."""


def byte_lut(tokenizer: Tokenizer, vocab_size: int | None = None) -> ByteLut:
    """The table of a tokenizer, with boundary rows up to a larger model vocabulary.

    Raises DataError for CaseOps vocabularies, whose byte counts are not a function of the token.
    """
    if isinstance(tokenizer, CaseOpsTokenizer):
        raise DataError(f"{tokenizer.name}: bytes of CaseOps tokens need the sidecar files fineweb_val_bytes_*.bin")
    size = max(tokenizer.vocab_size, vocab_size or 0)
    lut = ByteLut(np.zeros(size, np.int16), np.zeros(size, np.bool_), np.ones(size, np.bool_))
    for token, data in enumerate(tokenizer.token_bytes):
        if not data:
            continue
        spaced = isinstance(tokenizer, SentencePieceTokenizer) and tokenizer.piece(token).startswith(SPACE)
        lut.is_boundary[token] = False
        lut.has_leading_space[token] = spaced
        lut.base_bytes[token] = len(data) - spaced
    return lut


def count_target_bytes(prev_ids: np.ndarray, target_ids: np.ndarray, lut: ByteLut) -> np.ndarray:
    """Bytes of every target given the token before it: int32, the shape of `target_ids`."""
    spaces = lut.has_leading_space[target_ids] & ~lut.is_boundary[prev_ids]
    return lut.base_bytes[target_ids].astype(np.int32) + spaces
