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
from underpar.data.tokenizer_base import Tokenizer
from underpar.data.validation import ValStream


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
    Cost: the tokenizer's speed twice; 16 bytes of memory a token.
    """
    ids: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    sizes: list[int] = []
    altered: list[int] = []
    unreadable: str | None = None
    digest = hashlib.sha256()
    for number, document in enumerate(stream_documents([text])):
        raw = document.text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
        found, found_counts = tokenizer.encode(document.text)
        ids.append(np.concatenate([np.array([tokenizer.bos_id], dtype=np.uint16), found]))
        counts.append(np.concatenate([np.zeros(1, dtype=np.int32), found_counts.astype(np.int32)]))
        sizes.append(len(raw))
        try:
            same = tokenizer.decode(found) == document.text
        except DataError as problem:
            same, unreadable = False, unreadable or str(problem)
        if not same:
            altered.append(number)
        progress(number + 1)
    if sum(sizes) == 0:
        raise DataError(f"{text.name} holds no text; give the held-out documents as JSON lines")
    starts = np.cumsum([0, *(len(part) for part in ids[:-1])], dtype=np.int64)
    stream = ValStream(np.concatenate(ids), np.concatenate(counts), starts)
    first = altered[0] if altered else None
    return HeldOut(
        stream, sum(sizes), np.array(sizes, dtype=np.int64), digest.hexdigest(), len(altered), first, unreadable
    )
