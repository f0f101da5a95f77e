"""The proof that a prepared validation split is what it claims: its raw text, tokenised again, gives the same stream."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from underpar.core.errors import DataError
from underpar.data.corpora import Document, stream_documents
from underpar.data.manifest import VAL_TEXT_FILE, Manifest
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import load_validation


def validation_documents(folder: str | Path) -> Iterator[Document]:
    """The raw validation documents of a prepared folder, in the order of its stream.

    Raises DataError when the set has none, as a published export, which is tokens only.
    """
    folder = Path(folder)
    if VAL_TEXT_FILE not in Manifest.load(folder).files:
        raise DataError(f"{folder} holds no raw validation text; a published export is tokens only")
    return stream_documents([folder / VAL_TEXT_FILE])


def retokenise(folder: str | Path) -> tuple[int, int]:
    """Encode the raw validation text again and compare ids, byte counts and, where lossless, the decoded text.

    Returns (documents, UTF-8 bytes) checked. Raises DataError naming the first document that differs.
    Cost: one encoding and one decoding of the validation text on one core.
    """
    folder = Path(folder)
    tokenizer, stream = load_tokenizer(folder), load_validation(folder)
    ends = np.append(stream.document_starts[1:], len(stream.tokens))
    documents = text_bytes = 0
    for index, document in enumerate(validation_documents(folder)):
        if index >= len(ends):
            raise DataError(
                f"{folder} has raw text of more than its {len(ends):,} tokenised documents; prepare it again"
            )
        place = slice(int(stream.document_starts[index]) + 1, int(ends[index]))
        ids, counts = tokenizer.encode(document.text)
        if not np.array_equal(ids, stream.tokens[place]) or not np.array_equal(counts, stream.byte_counts[place]):
            raise DataError(
                f"validation document {index} of {folder} is not the encoding of its text; prepare it again"
            )
        if tokenizer.lossless and tokenizer.decode(ids) != document.text:
            raise DataError(f"validation document {index} of {folder} does not decode to its text")
        documents, text_bytes = documents + 1, text_bytes + len(document.text.encode())
    if documents != len(ends):
        raise DataError(f"{folder} has raw text of {documents:,} documents, tokens of {len(ends):,}; prepare it again")
    return documents, text_bytes
