"""Published containers give back what they were given, and the published payloads come out."""

import brotli
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.compress.published import (
    pack_bits,
    pack_groups,
    shuffle,
    similar_order,
    unpack_bits,
    unpack_groups,
    unshuffle,
)
from underpar.core.errors import ArtifactError


@given(data=st.binary(max_size=200), stride=st.integers(1, 5))
def test_shuffling_can_be_undone(data: bytes, stride: int) -> None:
    assert unshuffle(shuffle(data, stride)) == data


def test_shuffled_bytes_are_where_they_belong() -> None:
    assert shuffle(b"aAbBc") == b"BSHF\x02abcAB"
    for other in (b"", b"BSHF", b"BSHF\x00ab", b"PGRP\x02ab"):
        with pytest.raises(ArtifactError, match="not a shuffled stream"):
            unshuffle(other)


@given(bits=st.integers(2, 8), count=st.integers(0, 60), seed=st.integers(0, 999))
def test_packed_bits_come_back(bits: int, count: int, seed: int) -> None:
    high = 2 ** (bits - 1)
    codes = np.random.default_rng(seed).integers(-high, high, count).astype(np.int8)
    packed = pack_bits(codes, bits)
    assert len(packed) == -(-count * bits // 8)
    assert np.array_equal(unpack_bits(packed, bits, count), codes)


def test_low_bits_come_first() -> None:
    assert pack_bits(np.array([1, -1, 2], np.int8), 6) == bytes([0b11_000001, 0b0010_1111, 0b00])


def test_the_published_payload_of_packed_six_bits() -> None:
    """8 blocks of width 512 with an MLP of 3 and a vocabulary of 2,048: 16,384,256 bytes."""
    matrices = [(512, 512), (256, 512), (256, 512), (512, 512), (1536, 512), (512, 1536)]
    codes = sum(len(pack_bits(np.zeros(shape, np.int8), 6)) + 2 * shape[0] for shape in matrices)
    gains = 4 * (8 * (512 + 512 + 2 * 512 + 8) + 4 * 512)
    assert 8 * codes + gains + 2 * 2048 * 512 == 16_384_256


def test_similar_rows_follow_each_other() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 5, 60)
    codes = (rng.integers(-20, 21, (5, 30))[kinds] + rng.integers(-1, 2, (60, 30))).astype(np.int8)
    order = similar_order(codes)
    assert order[0] == 0
    assert sorted(order) == list(range(60))
    assert (np.diff(kinds[order]) != 0).sum() == 4  # each kind is one run


def test_groups_come_back_and_similar_rows_are_smaller() -> None:
    rng = np.random.default_rng(1)
    table = (rng.integers(-20, 21, (12, 64))[rng.integers(0, 12, 200)] + rng.integers(-1, 2, (200, 64))).astype(np.int8)
    groups = {"embedding": [table], "q": [rng.integers(-9, 10, (16, 24)).astype(np.int8) for _ in range(3)], "none": []}
    shapes = {name: [codes.shape for codes in members] for name, members in groups.items()}
    sizes = []
    for reordered in (set(), {"embedding", "q"}):
        blob = pack_groups(groups, reordered, brotli.compress, b"the rest")
        found, rest = unpack_groups(blob, shapes, reordered, brotli.decompress)
        assert rest == b"the rest"
        assert all(np.array_equal(a, b) for name in groups for a, b in zip(found[name], groups[name], strict=True))
        sizes.append(len(blob))
    assert sizes[1] < 0.95 * sizes[0]
    with pytest.raises(ArtifactError, match="not a container of groups"):
        unpack_groups(b"BSHF", shapes, set(), brotli.decompress)
