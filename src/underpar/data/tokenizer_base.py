"""What every tokenizer offers, and the simplest one: bytes.

Bits per byte divides by the UTF-8 bytes of the original text, so a tokenizer answers two questions at once: which ids,
and how many original bytes each id stands for. The counts of a text sum to its UTF-8 length, exactly, or encoding fails.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from underpar.core.errors import DataError
from underpar.data.caseops import lone_surrogate

MAX_VOCAB_SIZE = 65_536
"""Ids are uint16 in shards."""

IDENTITY_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"


class Tokenizer(ABC):
    """Text <-> token ids, with exact byte accounting. Safe to share between threads."""

    kind: str
    """'bytes', 'gpt2', 'sentencepiece' or 'caseops'."""
    name: str
    """Short name: 'byte260', 'sp1024', 'caseops8192'."""
    vocab_size: int
    bos_id: int
    lossless: bool
    """Whether decode(encode(text)) is the text for every text. Scores of others are labelled lossy."""
    normalization: str
    """'identity', or the rule that rewrites the text before it is split ('nmt_nfkc')."""

    @abstractmethod
    def encode_ids(self, text: str) -> np.ndarray:
        """Token ids of one document without BOS: uint16 (tokens,). Raises DataError on lone surrogates."""

    @abstractmethod
    def _encode_counted(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """`encode_ids` and the original bytes of each id, before they are checked: integers (tokens,)."""

    @abstractmethod
    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids; special tokens stand for nothing. Raises DataError where the ids are no text's encoding."""

    @property
    @abstractmethod
    def token_bytes(self) -> tuple[bytes, ...]:
        """Per id, the bytes that it contributes to the text (before case markers are applied); b'' for special tokens."""

    @abstractmethod
    def model_bytes(self) -> bytes:
        """What defines the tokenizer, as bytes; its sha256 is the identity."""

    def encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids without BOS, and the original UTF-8 bytes that each stands for: uint16 (tokens,) twice.

        Raises DataError when the counts do not sum to the text's UTF-8 length, or on lone surrogates.
        """
        ids, counts = self._encode_counted(text)
        found, wanted = int(counts.sum()), utf8_length(text)
        if found != wanted:
            raise DataError(
                f"{self.name}: the tokens of a document stand for {found:,} bytes, but it has {wanted:,}: {_excerpt(text)}"
            )
        if len(counts) and counts.max() > np.iinfo(np.uint16).max:
            raise DataError(
                f"{self.name}: one token stands for {counts.max():,} bytes, over the 65,535 of a sidecar: {_excerpt(text)}"
            )
        return ids, counts.astype(np.uint16)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """JSON data that says which tokenizer this is; equal identities give equal ids and equal byte counts."""
        return {
            "kind": self.kind,
            "name": self.name,
            "vocab_size": self.vocab_size,
            "sha256": hashlib.sha256(self.model_bytes()).hexdigest(),
            "lossless": self.lossless,
            "normalization": self.normalization,
        }

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.model` and `tokenizer.json` (the identity) into the folder; `load_tokenizer` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).write_bytes(self.model_bytes())
        (folder / IDENTITY_FILE).write_text(json.dumps(self.identity, indent=2) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {'lossless' if self.lossless else 'lossy ' + self.normalization})"


class ByteTokenizer(Tokenizer):
    """`byte260`: pad 0, bos 1, eos 2, unk 3, and byte b at id b + 4."""

    FIRST_BYTE = 4
    MODEL = b"byte260: pad 0, bos 1, eos 2, unk 3, byte b at b + 4\n"

    kind = "bytes"
    name = "byte260"
    vocab_size = 260
    bos_id = 1
    lossless = True
    normalization = "identity"

    def encode_ids(self, text: str) -> np.ndarray:
        return np.frombuffer(utf8(text), dtype=np.uint8) + np.uint16(self.FIRST_BYTE)

    def _encode_counted(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        ids = self.encode_ids(text)
        return ids, np.ones(len(ids), dtype=np.int64)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return join_tokens(self, ids)

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        return (b"",) * self.FIRST_BYTE + tuple(bytes([value]) for value in range(256))

    def model_bytes(self) -> bytes:
        return self.MODEL


def join_tokens(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> str:
    """The concatenated `token_bytes` of the ids as text. Raises DataError on an unknown id or broken UTF-8."""
    table = tokenizer.token_bytes
    values = np.asarray(ids, dtype=np.int64)
    if len(values) and not 0 <= values.min() <= values.max() < len(table):
        bad = int(values[(values < 0) | (values >= len(table))][0])
        raise DataError(f"token id {bad} is outside the vocabulary of {tokenizer.name} (0 to {len(table) - 1})")
    data = b"".join(table[i] for i in values.tolist())
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise DataError(
            f"the ids are not whole text: broken UTF-8 at byte {problem.start:,} of {len(data):,}; decode whole documents"
        ) from None


def utf8(text: str) -> bytes:
    """The UTF-8 of the text. Raises DataError on a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise lone_surrogate(problem) from None


def utf8_length(text: str) -> int:
    """Bytes of the text in UTF-8."""
    return len(text) if text.isascii() else len(utf8(text))


def _excerpt(text: str) -> str:
    return repr(text[:60] + ("..." if len(text) > 60 else ""))
