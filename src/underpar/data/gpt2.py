"""The byte-level BPE of GPT-2: 50,256 byte strings, and an end-of-text token that stands before every document as its BOS.

The vocabulary ships with the package and is known by its hash; nothing is fetched. tiktoken, which splits the text, is imported
at the first encoding, so that prepared tokens can be used where it is not installed.
"""

import base64
import hashlib
import lzma
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from underpar.core.errors import DataError
from underpar.data.tokenizer_base import Tokenizer, join_tokens, utf8

VOCABULARY = Path(__file__).parent / "vocabularies" / "gpt2.tiktoken.xz"
SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
"""Of the vocabulary as tiktoken publishes it: one base64 byte string and its rank a line."""
SPLIT_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""What words are, before merges: the pattern of the GPT-2 release."""


class Gpt2Tokenizer(Tokenizer):
    """`gpt2`: every text has an encoding and comes back from it. Source: Radford et al. 2019."""

    kind = "gpt2"
    name = "gpt2"
    vocab_size = 50_257
    bos_id = 50_256
    lossless = True
    normalization = "identity"

    def __init__(self, model: bytes | None = None) -> None:
        """model: the vocabulary file; None is the one that ships. Raises DataError when it is not GPT-2's."""
        self._model = _shipped() if model is None else model
        found = hashlib.sha256(self._model).hexdigest()
        if found != SHA256:
            raise DataError(f"the vocabulary has sha256 {found}, that of GPT-2 has {SHA256}; reinstall underpar")

    def encode_ids(self, text: str) -> np.ndarray:
        utf8(text)  # a lone surrogate has no bytes; tiktoken would replace it
        return np.array(self._encoding.encode_ordinary(text), dtype=np.uint16)

    def _encode_counted(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        ids = self.encode_ids(text)
        return ids, self._byte_table[ids]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return join_tokens(self, ids)

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        return (*self._ranks, b"")

    def model_bytes(self) -> bytes:
        return self._model

    @cached_property
    def _ranks(self) -> dict[bytes, int]:
        pairs = (line.split() for line in self._model.splitlines())
        return {base64.b64decode(piece): int(rank) for piece, rank in pairs}

    @cached_property
    def _byte_table(self) -> np.ndarray:
        return np.array([len(piece) for piece in self.token_bytes], dtype=np.int64)

    @cached_property
    def _encoding(self) -> Any:
        try:
            import tiktoken
        except ImportError:
            raise DataError("encoding with the GPT-2 vocabulary needs tiktoken: pip install tiktoken") from None
        return tiktoken.Encoding("gpt2", pat_str=SPLIT_PATTERN, mergeable_ranks=self._ranks, special_tokens={})

    def __getstate__(self) -> dict[str, Any]:
        return {"_model": self._model}


def _shipped() -> bytes:
    try:
        return lzma.decompress(VOCABULARY.read_bytes())
    except (OSError, lzma.LZMAError) as problem:
        raise DataError(f"{VOCABULARY} cannot be read: {problem}; reinstall underpar") from None
