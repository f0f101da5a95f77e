"""The shard format: exact bytes, round trips, every kind of damage, and which files belong to a split."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.core.errors import DataError
from underpar.data.shards import (
    HEADER_BYTES,
    ShardWriter,
    open_shard,
    read_count,
    shard_files,
    shard_name,
    sidecar_files,
    sidecar_name,
    write_shard,
)


def test_bytes_on_disk_are_the_published_format(tmp_path):
    path = tmp_path / shard_name("train", 0)
    write_shard(path, np.array([1, 2, 65535], dtype=np.uint16))
    raw = path.read_bytes()
    assert raw == struct.pack("<3i", 20240520, 1, 3) + bytes(1012) + struct.pack("<3H", 1, 2, 65535)
    assert len(raw) == HEADER_BYTES + 6


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_round_trip(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("shard") / "x.bin"
    write_shard(path, np.array(values, dtype=np.uint16))
    tokens = open_shard(path)
    assert tokens.dtype == np.uint16
    assert tokens.tolist() == values


def damaged(magic=20240520, version=1, count=4, tokens=4):
    return struct.pack("<3i", magic, version, count) + bytes(1012) + bytes(2 * tokens)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "0 bytes, shorter than a shard's header"),
        (damaged()[:1023], "1023 bytes, shorter"),
        (damaged(magic=20240801), "magic 20240801, expected 20240520"),
        (damaged(magic=0), "magic 0"),
        (damaged(version=2), "version 2"),
        (damaged(count=0, tokens=0), "claims 0 tokens"),
        (damaged(count=-1), "claims -1 tokens"),
        (damaged(count=5), "1032 bytes, but its header says 5 tokens = 1034"),
        (damaged(count=3), "its header says 3 tokens"),
        (damaged() + b"\0", "1033 bytes"),
        (damaged(count=2**31 - 1), "2147483647 tokens"),
    ],
)
def test_damage_is_named(tmp_path, raw, message):
    path = tmp_path / "fineweb_val_000000.bin"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message):
        open_shard(path)


def test_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"cannot read shard .*No such file"):
        open_shard(tmp_path / "absent.bin")


@pytest.mark.parametrize(
    "tokens", [np.array([70000]), np.array([1.5]), np.zeros((2, 2), np.uint16), np.zeros(0, np.uint16)]
)
def test_only_flat_uint16_is_written(tmp_path, tokens):
    with pytest.raises(DataError):
        write_shard(tmp_path / "x.bin", tokens)
    assert not list(tmp_path.iterdir())


def test_files_of_a_split_are_sorted_and_never_sidecars(tmp_path):
    one = np.array([1], dtype=np.uint16)
    for index in (11, 2, 0):
        write_shard(tmp_path / shard_name("val", index), one)
        write_shard(tmp_path / sidecar_name(index), one)
    write_shard(tmp_path / shard_name("train", 0), one)
    (tmp_path / "fineweb_val_000003.bin.partial").write_bytes(b"")
    assert [p.name for p in shard_files(tmp_path, "val")] == [shard_name("val", i) for i in (0, 2, 11)]
    assert [p.name for p in shard_files(tmp_path, "train")] == [shard_name("train", 0)]
    assert [p.name for p in sidecar_files(tmp_path)] == [sidecar_name(i) for i in (0, 2, 11)]
    assert shard_files(tmp_path / "absent", "train") == []


@given(st.lists(st.integers(0, 12), max_size=6), st.integers(3, 10))
@settings(max_examples=40, deadline=None)
def test_writer_cuts_a_stream_at_exact_shard_ends(tmp_path_factory, lengths, shard_tokens):
    folder = tmp_path_factory.mktemp("writer")
    stream = np.arange(sum(lengths), dtype=np.uint16)
    with ShardWriter(folder, "fineweb_train_{:06d}.bin", shard_tokens) as writer:
        for end, length in zip(np.cumsum(lengths, dtype=int), lengths, strict=True):
            writer.append(stream[end - length : end])
    shards = [open_shard(p) for p in shard_files(folder, "train")]
    assert writer.paths == shard_files(folder, "train")
    assert writer.total == len(stream)
    assert all(len(s) == shard_tokens for s in shards[:-1])
    assert np.array_equal(np.concatenate([*shards, np.zeros(0, np.uint16)]), stream)


def test_a_shard_left_half_written_cannot_be_read(tmp_path):
    writer = ShardWriter(tmp_path, "fineweb_train_{:06d}.bin", 10)
    writer.append(np.arange(13, dtype=np.uint16))
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    complete, partial = shard_files(tmp_path, "train")
    assert read_count(complete) == 10
    with pytest.raises(DataError, match="magic 0"):
        read_count(partial)
