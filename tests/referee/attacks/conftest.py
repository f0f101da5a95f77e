"""A held-out text of short documents."""

import numpy as np
import pytest

from underpar.data.sample import sample_documents
from underpar.data.tokenizer_base import ByteTokenizer


def byte_tokens(texts: list[str]) -> np.ndarray:
    """BOS and the bytes of every text, uint16."""
    tokenizer = ByteTokenizer()
    parts = [np.concatenate([[tokenizer.bos_id], tokenizer.encode_ids(text)]) for text in texts]
    return np.concatenate(parts).astype(np.uint16)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Of 100 to 160 characters, in no order."""
    return [document.text[: 100 + 7 * number % 61] for number, document in enumerate(sample_documents("val"))][:40]


@pytest.fixture(scope="session")
def held_out(texts: list[str]) -> np.ndarray:
    return byte_tokens(texts)
