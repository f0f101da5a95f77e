"""Overlap of two splits, text known by heart, and unseen text."""

from pathlib import Path

import numpy as np
import pytest

from underpar.core.errors import DataError
from underpar.data.shards import write_shard
from underpar.referee.probes import overlap as overlapping
from underpar.referee.probes.hashing import gram_hashes, span_hashes
from underpar.referee.probes.memory import is_new, longest_free_run
from underpar.referee.probes.overlap import overlap
from underpar.referee.probes.unseen import unseen_gap

from .streams import BOS, box, fixed, stream


def documents(count: int, seed: int, length: int = 60) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [np.append([BOS], generator.integers(1, 500, length)).astype(np.uint16) for _ in range(count)]


def shard(path: Path, parts: list[np.ndarray]) -> Path:
    write_shard(path, np.concatenate(parts))
    return path


def test_hashes_are_those_of_the_stretch_wherever_it_stands() -> None:
    tokens = np.tile(stream(50), 3)
    found = gram_hashes(tokens)
    assert len(found) == 150 - 12
    assert np.array_equal(found[:50], found[50:100])
    assert len(np.unique(found)) == 50
    assert (
        span_hashes(tokens, np.array([0, 50]), np.array([20, 70])).tolist()[0]
        == span_hashes(tokens, np.array([100]), np.array([120])).tolist()[0]
    )


@pytest.mark.parametrize("chunk", [64, 1 << 22])
def test_overlap_counts_whole_documents_and_shared_sequences(tmp_path: Path, monkeypatch, chunk: int) -> None:
    """Also when a document straddles pieces and shards."""
    monkeypatch.setattr(overlapping, "CHUNK_TOKENS", chunk)
    held, train = documents(10, 1), documents(40, 2)
    part = np.concatenate([held[4][:40], train[5][1:]]).astype(np.uint16)  # most of a document, inside another one
    mixed = [*train[:7], held[2], *train[7:20], part, held[7]]
    whole = np.concatenate(mixed)
    paths = [
        shard(tmp_path / "a_train_000000.bin", [whole[:700]]),
        shard(tmp_path / "a_train_000001.bin", [whole[700:]]),
    ]
    found = overlap(np.concatenate(held), BOS, paths)
    assert found.exact_documents == 2
    assert found.first_exact == 2
    assert found.half_shared_documents == 3
    assert found.train_tokens == len(whole)
    assert found.train_documents == len(mixed)
    assert found.documents == 10
    assert found.grams == 10 * (60 - 12)
    assert found.shared_grams == 2 * 48 + (39 - 12)


def test_disjoint_splits_share_nothing(tmp_path: Path) -> None:
    path = shard(tmp_path / "a_train_000000.bin", documents(40, 2))
    found = overlap(np.concatenate(documents(10, 1)), BOS, [path])
    assert (found.exact_documents, found.shared_grams, found.half_shared_documents) == (0, 0, 0)


def test_a_free_stretch_of_new_text_is_found_and_a_repetition_is_not() -> None:
    tokens = np.concatenate(documents(6, 3))
    charges = np.full(len(tokens) - 1, 2.0)
    charges[100:200] = 1e-4
    found = longest_free_run(charges, tokens)
    assert (found.tokens, found.start) == (100, 101)
    assert found.share_free == pytest.approx(100 / len(charges))
    assert found.stretches == ((101, 100),)
    twice = np.concatenate([tokens, tokens])
    repeated = np.full(len(twice) - 1, 2.0)
    repeated[len(tokens) + 13 :] = 1e-4
    assert longest_free_run(repeated, twice).tokens == 0
    assert is_new(twice).sum() == len(tokens) + 12
    assert longest_free_run(charges[:5], tokens[:6]).tokens == 0


def test_text_that_is_known_costs_less_than_text_that_is_not(tmp_path: Path) -> None:
    held, other = stream(2000, 1), stream(2000, 2)
    path = shard(tmp_path / "unseen.bin", [other])
    honest = unseen_gap(box(fixed), held, path, 10_000)
    assert abs(honest.z) < 4

    def knows(tokens: np.ndarray) -> np.ndarray:
        return fixed(tokens) * (0.7 if tokens[5] == held[5] and tokens[9] == held[9] else 1.0)

    assert unseen_gap(box(knows), held, path, 10_000).z < -6
    with pytest.raises(DataError, match="whole documents"):
        unseen_gap(box(fixed), held, path, 100)


def test_every_long_stretch_is_named_the_longest_first() -> None:
    tokens = np.concatenate(documents(12, 3))
    charges = np.full(len(tokens) - 1, 2.0)
    charges[100:170] = charges[300:340] = charges[400:500] = 1e-4
    assert longest_free_run(charges, tokens).stretches == ((401, 100), (101, 70))


def test_what_is_known_by_heart_is_looked_for_in_the_shards(tmp_path: Path) -> None:
    held = np.concatenate(documents(10, 1))
    copied = held[62:112]  # most of the second document, which begins with the BOS at 61
    path = shard(tmp_path / "a_train_000000.bin", [*documents(40, 2), np.array([BOS], dtype=np.uint16), copied])
    found = overlap(held, BOS, [path], [(62, 50), (200, 33)])
    assert (found.free_grams, found.shared_free_grams) == (50 - 12 + 33 - 12, 50 - 12)
    nothing = overlap(held, BOS, [path])
    assert (nothing.free_grams, nothing.shared_free_grams) == (0, 0)
