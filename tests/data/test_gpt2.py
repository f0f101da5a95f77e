"""The vocabulary of GPT-2 as it ships."""

import hashlib

import numpy as np
import pytest

from underpar.core.errors import DataError
from underpar.data.fineweb import fetch_fineweb
from underpar.data.fineweb_sources import LocalFolder
from underpar.data.gpt2 import SHA256, Gpt2Tokenizer
from underpar.data.shards import write_shard
from underpar.data.tokenizers import Gpt2, load_tokenizer, parse_tokenizer
from underpar.data.validation import load_validation


def test_known_ids() -> None:
    tokenizer = Gpt2().build()
    assert tokenizer.encode_ids("Hello world").tolist() == [15496, 995]
    assert tokenizer.encode_ids("The dog").tolist() == [464, 3290]
    assert (tokenizer.bos_id, tokenizer.vocab_size) == (50_256, 50_257)


def test_the_end_of_text_marker_in_a_text_is_just_text() -> None:
    """Only the loader writes document starts; a text cannot forge one."""
    tokenizer = Gpt2().build()
    ids = tokenizer.encode_ids("a<|endoftext|>b")
    assert tokenizer.bos_id not in ids
    assert tokenizer.decode(ids) == "a<|endoftext|>b"


def test_every_byte_is_a_token_and_each_token_counts_its_bytes() -> None:
    tokens = Gpt2().build().token_bytes
    assert {bytes([value]) for value in range(256)} <= set(tokens)
    assert len(set(tokens)) == len(tokens) == 50_257
    assert tokens[50_256] == b""


def test_counts_are_bytes_of_the_original_even_inside_a_character() -> None:
    ids, counts = Gpt2().build().encode("é😀 ok")
    assert counts.sum() == len("é😀 ok".encode())
    assert len(ids) == len(counts)
    assert ids.dtype == np.uint16


def test_it_ships_with_its_published_hash(tmp_path) -> None:
    tokenizer = Gpt2().build()
    assert hashlib.sha256(tokenizer.model_bytes()).hexdigest() == SHA256
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).identity == tokenizer.identity
    assert parse_tokenizer("gpt2") == Gpt2()


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(DataError, match="that of GPT-2 has 306cd27f"):
        Gpt2Tokenizer(b"IQ== 0\n")


def test_the_published_export_without_a_manifest_becomes_a_prepared_folder(tmp_path) -> None:
    """Flat files, training shards counted from 1; bytes of validation tokens by the vocabulary."""
    tokenizer, texts = Gpt2().build(), ["Hello world, é!", "A second document.", "And a third."]
    stream = np.concatenate([np.array([50_256, *tokenizer.encode_ids(text)], dtype=np.uint16) for text in texts])
    source = tmp_path / "export"
    source.mkdir()
    write_shard(source / "fineweb_val_000000.bin", stream)
    for index in (1, 2):
        write_shard(source / f"fineweb_train_{index:06d}.bin", stream)
    manifest = fetch_fineweb("gpt2", tmp_path / "data", train_shards=2, source=LocalFolder(source))
    assert (manifest.splits["train"].tokens, manifest.splits["val"].documents) == (2 * len(stream), 3)
    found = load_validation(tmp_path / "data")
    assert found.text_bytes == sum(len(text.encode()) for text in texts)
    assert found.first(4).tokens.tolist() == stream[:5].tolist()
    with pytest.raises(DataError, match=r"predictable tokens, 1,000 are to be scored"):
        found.first(1000)
