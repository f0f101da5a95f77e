"""The bundled sample: licences, size and disjoint splits."""

import pytest

from underpar.core.errors import DataError
from underpar.data.sample import SAMPLE_DIR, sample_documents, sample_file

PUBLIC_DOMAIN = {"US-public-domain", "US-public-domain/CC0", "public-domain/CC0", "CC0-1.0"}
FREE = PUBLIC_DOMAIN | {"MIT", "Apache-2.0", "MIT/Apache-2.0"}


def test_every_document_is_free_to_redistribute_and_listed():
    sources = (SAMPLE_DIR / "SOURCES.md").read_text("utf-8")
    for split in ("train", "val"):
        for document in sample_documents(split):
            assert document["license"] in FREE
            assert f"| {document['source']} | {document['license']} |" in sources


def test_sizes_match_the_table_of_sources():
    counts = []
    for split in ("train", "val"):
        texts = [document["text"] for document in sample_documents(split)]
        counts += [f"{len(texts):,}", f"{sum(len(text.encode()) for text in texts):,}"]
    assert "| **total** | | | " + " | ".join(counts) + " |" in (SAMPLE_DIR / "SOURCES.md").read_text("utf-8")


def test_splits_share_no_text():
    train = {document["text"] for document in sample_documents("train")}
    val = {document["text"] for document in sample_documents("val")}
    assert len(val) == 76
    assert not train & val


def test_compressed_size_stays_small():
    assert sum(sample_file(split).stat().st_size for split in ("train", "val")) < 3_000_000


def test_unknown_split_is_named():
    with pytest.raises(DataError, match="no split 'vall'; did you mean 'val'"):
        next(sample_documents("vall"))
