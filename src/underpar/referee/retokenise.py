"""The held-out stream, made anew from the raw text: no shard, no sidecar and no count of the submitter's is used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from underpar.core.errors import DataError
from underpar.data.corpora import stream_documents
from underpar.data.sentencepiece_models import SentencePieceTokenizer
from underpar.data.tokenizer_base import Tokenizer
from underpar.data.validation import ValStream
from underpar.referee.recovery import Recovery

AROUND = 16
"""Characters shown on either side of the first difference of a document."""


@dataclass(frozen=True)
class HeldOut:
    """The stream and what the raw text says of itself."""

    stream: ValStream
    text_bytes: int
    """UTF-8 bytes of all documents, counted on the raw text."""
    document_bytes: np.ndarray
    """int64 (documents,), counted on the raw text."""
    text_sha256: str
    """Of all documents, each preceded by its length in bytes, so that moving a boundary changes it."""
    altered_documents: int
    """Documents that decoding their tokens does not give back."""
    first_altered: int | None
    unreadable: str | None
    """Why the first document that cannot be decoded at all cannot."""
    example: tuple[str, str] | None = None
    """The first difference: the original, and what its tokens read as."""
    decoded_bytes: int = 0
    """UTF-8 bytes of what the tokens read as."""
    recovery: Recovery | None = None
    """What the tokenizer rewrites; None where it rewrites nothing, or cannot say."""

    def to_json(self) -> dict[str, Any]:
        return {
            "documents": len(self.document_bytes),
            "text_bytes": self.text_bytes,
            "text_sha256": self.text_sha256,
            "stream_tokens": len(self.stream.tokens),
            "stream_bytes": int(self.stream.byte_counts.astype(np.int64).sum()),
            "first_unequal_document": self._first_unequal(),
            "altered_documents": self.altered_documents,
            "first_altered": self.first_altered,
            "unreadable": self.unreadable,
            "example": None if self.example is None else list(self.example),
            "decoded_bytes": self.decoded_bytes,
            "recovery": None if self.recovery is None else self.recovery.to_json(),
        }

    def _first_unequal(self) -> int | None:
        """The first document whose tokens stand for another number of bytes than its text has."""
        counted = np.add.reduceat(self.stream.byte_counts.astype(np.int64), self.stream.document_starts)
        wrong = np.flatnonzero(counted != self.document_bytes)
        return int(wrong[0]) if len(wrong) else None


def retokenise(text: Path, tokenizer: Tokenizer, progress: Callable[[int], None]) -> HeldOut:
    """Read every document, tokenise it, decode it again. One BOS goes before every document.

    progress: called with the number of documents done.
    Raises DataError when the file is damaged or holds no text, or when a document's byte counts do not add up.
    Cost: the tokenizer's speed twice, three times where it rewrites; 16 bytes of memory a token.
    """
    ids: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    sizes: list[int] = []
    altered: list[int] = []
    unreadable: str | None = None
    example: tuple[str, str] | None = None
    decoded_bytes = 0
    recovery = Recovery(tokenizer) if isinstance(tokenizer, SentencePieceTokenizer) and not tokenizer.lossless else None
    digest = hashlib.sha256()
    for number, document in enumerate(stream_documents([text])):
        raw = document.text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
        found, found_counts = tokenizer.encode(document.text)
        ids.append(np.concatenate([np.array([tokenizer.bos_id], dtype=np.uint16), found]))
        counts.append(np.concatenate([np.zeros(1, dtype=np.int32), found_counts.astype(np.int32)]))
        sizes.append(len(raw))
        if recovery is not None:
            recovery.add(document.text)
        try:
            read = tokenizer.decode(found)
        except DataError as problem:
            read, unreadable = "", unreadable or str(problem)
        decoded_bytes += len(read.encode())
        if read != document.text:
            altered.append(number)
            example = example or _first_difference(document.text, read)
        progress(number + 1)
    if sum(sizes) == 0:
        raise DataError(f"{text.name} holds no text; give the held-out documents as JSON lines")
    starts = np.cumsum([0, *(len(part) for part in ids[:-1])], dtype=np.int64)
    stream = ValStream(np.concatenate(ids), np.concatenate(counts), starts)
    first = altered[0] if altered else None
    return HeldOut(
        stream=stream,
        text_bytes=sum(sizes),
        document_bytes=np.array(sizes, dtype=np.int64),
        text_sha256=digest.hexdigest(),
        altered_documents=len(altered),
        first_altered=first,
        unreadable=unreadable,
        example=example,
        decoded_bytes=decoded_bytes,
        recovery=recovery,
    )


def _first_difference(text: str, read: str) -> tuple[str, str]:
    shorter = min(len(text), len(read))
    place = next((at for at in range(shorter) if text[at] != read[at]), shorter)
    around = slice(max(0, place - AROUND), place + AROUND)
    return text[around], read[around]
