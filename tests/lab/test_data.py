"""Tokens that do not fit a recipe are refused before anything is trained on them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from underpar.core.errors import DataError
from underpar.core.world import World
from underpar.data.shards import open_shard, shard_files, write_shard
from underpar.lab.data import check_data, find_data
from underpar.recipes import registry

BYTES = ("data.tokenizer=Bytes", "model.vocab_size=260")
PACKED = "data.loader=DocumentPacking(batch_tokens=64,seq_len=32,spans=1)"


def test_tokens_that_fit_are_taken(byte_tokens: Path) -> None:
    check_data(registry.resolve("golf/baseline", overrides=BYTES), byte_tokens)
    check_data(registry.resolve("golf/baseline", overrides=[*BYTES, PACKED]), byte_tokens)


def test_tokens_of_another_vocabulary_are_refused(byte_tokens: Path) -> None:
    with pytest.raises(DataError, match=r"vocabulary of 260.*prepare with --tokenizer sp1024"):
        check_data(registry.resolve("golf/baseline"), byte_tokens)


def test_tokens_of_another_tokenizer_with_as_many_ids_are_refused(byte_tokens: Path) -> None:
    other = f"data.tokenizer=PublishedModel(file='other_260_bpe',sha256='{'0' * 64}',vocab_size=260)"
    resolved = registry.resolve("golf/baseline", overrides=[other, "model.vocab_size=260"])
    with pytest.raises(DataError, match=r"made by tokenizer byte260, recipe 'golf/baseline' names PublishedModel"):
        check_data(resolved, byte_tokens)


def test_a_recipe_without_data_says_how_to_make_it() -> None:
    with pytest.raises(DataError, match="underpar data prepare"):
        find_data(registry.resolve("golf/baseline"), None, World())


@pytest.mark.parametrize("late", [False, True])
def test_packing_needs_document_starts(
    byte_tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """One is enough, wherever it is; rows need none."""
    monkeypatch.setattr("underpar.lab.data.GLANCE_TOKENS", 10)
    shutil.copytree(byte_tokens, tmp_path / "tokens")
    (shard,) = shard_files(tmp_path / "tokens", "train")
    tokens = np.array(open_shard(shard))
    tokens[tokens == 1] = 9
    tokens[-5] = 1 if late else 9
    shard.unlink()
    write_shard(shard, tokens)
    check_data(registry.resolve("golf/baseline", overrides=BYTES), tmp_path / "tokens")
    packed = registry.resolve("golf/baseline", overrides=[*BYTES, PACKED])
    if late:
        check_data(packed, tmp_path / "tokens")
        return
    with pytest.raises(DataError, match=r"has no BOS \(id 1\).*prepare it again.*SequentialRows"):
        check_data(packed, tmp_path / "tokens")
