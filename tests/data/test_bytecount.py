"""Bytes by table, for shards without a sidecar."""

import numpy as np
import pytest
from hypothesis import given, settings
from tokenizer_cases import HOSTILE, HOSTILE_TEXT, sample_texts, train_published_style, trained

from underpar.core.errors import DataError
from underpar.data.bytecount import byte_lut, count_target_bytes
from underpar.data.caseops import MARKERS
from underpar.data.sentencepiece_models import sentencepiece_tokenizer
from underpar.data.tokenizers import Tokenizer


def table_bytes(tokenizer: Tokenizer, text: str) -> int:
    stream = np.concatenate([[tokenizer.bos_id], tokenizer.encode_ids(text)])
    return int(count_target_bytes(stream[:-1], stream[1:], byte_lut(tokenizer)).sum())


@pytest.mark.parametrize("name", ["byte260", "sp1024"])
def test_table_equals_the_text_except_a_space_right_after_bos(name):
    tokenizer = trained(name)
    for text in [*sample_texts()[:20], *HOSTILE]:
        uncounted = name == "sp1024" and text.startswith(" ")
        if text.startswith("  "):
            continue  # how many spaces the first piece holds depends on the vocabulary
        assert table_bytes(tokenizer, text) == len(text.encode()) - uncounted


@settings(max_examples=60)
@given(HOSTILE_TEXT)
def test_table_equals_the_text_after_a_letter(text):
    """Behind a letter no space is at a boundary, so nothing is left out."""
    assert table_bytes(trained("sp1024"), "x" + text) == len(("x" + text).encode())


def test_normalising_model_counts_what_it_wrote_down():
    tokenizer = sentencepiece_tokenizer(train_published_style())
    text = "Two  spaces, a line\nend and ﬁ."
    assert table_bytes(tokenizer, text) == len(b"Two spaces, a line end and fi.")


def test_special_rows_are_boundaries_and_a_larger_model_adds_more():
    tokenizer = trained("sp1024")
    lut = byte_lut(tokenizer, vocab_size=1100)
    assert lut.base_bytes.dtype == np.int16
    assert np.flatnonzero(lut.is_boundary).tolist() == [0, 1, 2, 3, *range(1024, 1100)]
    assert lut.base_bytes[lut.is_boundary].sum() == 0
    assert lut.base_bytes[4:260].tolist() == [1] * 256
    assert not lut.has_leading_space[4:260].any()
    the = next(i for i in range(1024) if tokenizer.piece(i) == "\u2581the")
    assert (lut.base_bytes[the], lut.has_leading_space[the]) == (3, True)


def test_caseops_vocabulary_needs_a_sidecar():
    with pytest.raises(DataError, match="need the sidecar"):
        byte_lut(sentencepiece_tokenizer(train_published_style(MARKERS)))
