"""Held-out text among the training tokens: whole documents by hash, and sequences of 13 tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from underpar.data.shards import open_shard, read_count
from underpar.referee.probes.hashing import GRAM, span_hashes

CHUNK_TOKENS = 1 << 22
FILTER_BITS = 27
"""A bitmap of 16 MB tells at once of most sequences that they are not in the held-out text."""


@dataclass(frozen=True)
class OverlapResult:
    """How much of the held-out stream stands in the training shards."""

    train_files: int
    train_tokens: int
    train_documents: int
    documents: int
    exact_documents: int
    """Held-out documents that are a whole training document, token for token."""
    first_exact: int | None
    """The number of the first of them."""
    grams: int
    """Different sequences of 13 tokens within held-out documents."""
    shared_grams: int
    half_shared_documents: int
    """Held-out documents of which half of the sequences or more stand in the training shards."""
    free_grams: int = 0
    """Sequences within the stretches that cost the predictor nothing."""
    shared_free_grams: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def overlap(
    tokens: np.ndarray, bos_id: int, train: Sequence[Path], stretches: Sequence[Sequence[int]] = ()
) -> OverlapResult:
    """Compare a held-out stream, uint16 (N,), with training shards.

    stretches: (position, number of tokens) of text that the predictor knows by heart, counted apart.
    Raises DataError for files that are no shards. Cost: about 0.1 us a training token; 40 bytes a held-out token.
    """
    starts, ends = _documents(tokens, bos_id)
    document_keys = span_hashes(tokens, starts, ends)
    grams, gram_documents = _grams(tokens, bos_id)
    keys, inverse = np.unique(grams, return_inverse=True)
    known = np.zeros(1 << FILTER_BITS, dtype=bool)
    known[keys & np.uint64((1 << FILTER_BITS) - 1)] = True
    seen = np.zeros(len(keys), dtype=bool)
    exact = np.zeros(len(starts), dtype=bool)
    train_documents = 0
    for chunk, is_end in _chunks(train, bos_id):
        first, last = _documents(chunk, bos_id)
        if not is_end:  # the last document goes on in the next chunk, which begins with it
            first, last = first[:-1], last[:-1]
        train_documents += len(first)
        exact |= np.isin(document_keys, span_hashes(chunk, first, last))
        found, _ = _grams(chunk, bos_id)
        found = found[known[found & np.uint64((1 << FILTER_BITS) - 1)]]
        seen |= np.isin(keys, found)
    exact &= ends > starts  # an empty document says nothing
    known_by_heart = _within(tokens, stretches)
    share = _share_by_document(seen[inverse], gram_documents, len(starts))
    places = np.flatnonzero(exact)
    return OverlapResult(
        train_files=len(train),
        train_tokens=sum(read_count(path) for path in train),
        train_documents=train_documents,
        documents=len(starts),
        exact_documents=len(places),
        first_exact=int(places[0]) if len(places) else None,
        grams=len(keys),
        shared_grams=int(seen.sum()),
        half_shared_documents=int((share >= 0.5).sum()),
        free_grams=len(known_by_heart),
        shared_free_grams=int(np.isin(known_by_heart, keys[seen]).sum()),
    )


def _documents(tokens: np.ndarray, bos_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the text of every document begins and ends; tokens before the first BOS belong to none."""
    bos = np.flatnonzero(tokens == bos_id)
    return bos + 1, np.append(bos[1:], len(tokens)) if len(bos) else bos


def _grams(tokens: np.ndarray, bos_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the sequences that lie within a document, and the document of each."""
    places = np.arange(max(0, len(tokens) - GRAM + 1))
    document = np.cumsum(tokens == bos_id)
    inside = document[places + GRAM - 1] == document[places] if len(places) else places.astype(bool)
    inside &= tokens[places] != bos_id
    places = places[inside]
    return span_hashes(tokens, places, places + GRAM), document[places] - 1


def _within(tokens: np.ndarray, stretches: Sequence[Sequence[int]]) -> np.ndarray:
    """Hashes of the sequences that lie within the stretches."""
    places = [np.arange(start, start + count - GRAM + 1) for start, count in stretches]
    first = np.concatenate([np.zeros(0, dtype=np.int64), *places])
    return span_hashes(tokens, first, first + GRAM)


def _share_by_document(shared: np.ndarray, document: np.ndarray, documents: int) -> np.ndarray:
    inside = document >= 0
    total = np.bincount(document[inside], minlength=documents)
    hits = np.bincount(document[inside], shared[inside], minlength=documents)
    return hits / np.maximum(total, 1)


def _chunks(train: Sequence[Path], bos_id: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Pieces of the training stream that begin at the document which the piece before left unfinished."""
    rest = np.zeros(0, dtype=np.uint16)
    for path in train:
        shard = open_shard(path)
        for start in range(0, len(shard), CHUNK_TOKENS):
            piece = np.concatenate([rest, shard[start : start + CHUNK_TOKENS]])
            yield piece, False
            bos = np.flatnonzero(piece == bos_id)
            unfinished = len(piece) - int(bos[-1]) if len(bos) else GRAM - 1
            rest = piece[-min(unfinished, 8 * CHUNK_TOKENS) :]
    yield rest, True
