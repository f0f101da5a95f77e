"""The bundled sample: licences, size and disjoint splits."""

import numpy as np
import pytest

from underpar.core.errors import DataError
from underpar.data.sample import SAMPLE_DIR, prepare_sample, sample_documents, sample_file
from underpar.data.shards import open_shard, shard_files
from underpar.data.tokenizers import SentencePiece, load_tokenizer
from underpar.data.validation import load_validation

PUBLIC_DOMAIN = {"US-public-domain", "US-public-domain/CC0", "public-domain/CC0", "CC0-1.0"}
FREE = PUBLIC_DOMAIN | {"MIT", "Apache-2.0", "MIT/Apache-2.0"}


def test_every_document_is_free_to_redistribute_and_listed():
    sources = (SAMPLE_DIR / "SOURCES.md").read_text("utf-8")
    for split in ("train", "val"):
        for document in sample_documents(split):
            assert document.license in FREE
            assert f"| {document.source} | {document.license} |" in sources


def test_sizes_match_the_table_of_sources():
    counts = []
    for split in ("train", "val"):
        texts = [document.text for document in sample_documents(split)]
        counts += [f"{len(texts):,}", f"{sum(len(text.encode()) for text in texts):,}"]
    assert "| **total** | | | " + " | ".join(counts) + " |" in (SAMPLE_DIR / "SOURCES.md").read_text("utf-8")


def test_splits_share_no_text():
    train = {document.text for document in sample_documents("train")}
    val = {document.text for document in sample_documents("val")}
    assert len(val) == 76
    assert not train & val


def test_compressed_size_stays_small():
    assert sum(sample_file(split).stat().st_size for split in ("train", "val")) < 3_000_000


def test_unknown_split_is_named():
    with pytest.raises(DataError, match="no split 'vall'; did you mean 'val'"):
        next(sample_documents("vall"))


def test_prepared_sample_is_the_bundled_text(tmp_path):
    folder = prepare_sample(SentencePiece(vocab_size=512, train_bytes=500_000), tmp_path / "out", workers=1)
    tokenizer, val = load_tokenizer(folder), load_validation(folder)
    ends = [*val.document_starts[1:], len(val.tokens)]
    texts = [document.text for document in sample_documents("val")]
    assert len(val.document_starts) == len(texts)
    for text, start, end in zip(texts, val.document_starts, ends, strict=True):
        assert tokenizer.decode(val.tokens[start + 1 : end]) == text
        assert int(val.byte_counts[start:end].sum()) == len(text.encode())
    (shard,) = shard_files(folder, "train")
    train = open_shard(shard)
    assert int((train == tokenizer.bos_id).sum()) == 1784
    first = next(sample_documents("train")).text
    assert np.array_equal(train[1 : 1 + len(tokenizer.encode_ids(first))], tokenizer.encode_ids(first))
