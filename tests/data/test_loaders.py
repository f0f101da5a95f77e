"""Shards to batches: the published order, the same for every number of processes, resumable by one integer."""

import threading
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import BOS, document_tokens, write_train_shards
from underpar.core.errors import ConfigError, DataError
from underpar.core.world import World
from underpar.data.context import Batch, packed_context, row_context
from underpar.data.loaders import DocumentPacking, Loader, SequentialRows, StepLoader, TokenStream, synthetic_step

ROWS = SequentialRows(batch_tokens=256, seq_len=8, spans=8)
"""A step of 8 spans of 32 tokens, 4 rows each."""
PACKED = DocumentPacking(batch_tokens=256, seq_len=16, spans=8)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Three shards of uneven length, 1,000 tokens in all."""
    folder = tmp_path_factory.mktemp("shards")
    tokens = document_tokens(1_000, mean_length=12)
    return folder, write_train_shards(folder, tokens[:300], tokens[300:307], tokens[307:])


def load(folder: Path, config: Loader = ROWS, *, rank: int = 0, size: int = 1, micro: int = 1 << 20) -> StepLoader:
    return StepLoader(folder, config, BOS, World(rank, size), micro_batch_tokens=micro)


def flat(batches: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """All inputs and targets of a step in order."""
    inputs = torch.cat([b.inputs.flatten() for b in batches])
    return inputs.numpy(), torch.cat([b.targets.flatten() for b in batches]).numpy()


# ------------------------------------------------------------------------------------------------- order


@given(position=st.integers(0, 5_000), count=st.integers(0, 2_500))
@settings(max_examples=60, deadline=None)
def test_stream_reads_across_shards_and_wraps(shards: tuple[Path, np.ndarray], position: int, count: int) -> None:
    folder, tokens = shards
    found = TokenStream(folder).read(position, count)
    assert np.array_equal(found, tokens[(position + np.arange(count)) % len(tokens)])


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_sequential_order_is_that_of_the_published_trainers(shards: tuple[Path, np.ndarray], size: int) -> None:
    """T = tokens / (processes * accumulation); micro-step m of rank r takes span m * processes + r of T + 1 tokens.

    Eight spans in all: their union over ranks and micro-steps is what one of ours takes, in stream order.
    """
    folder, tokens = shards
    span = 32
    for step in range(3):
        start = step * 8 * (span + 1)
        want_inputs, want_targets = [], []
        for index in range(8):
            at = (start + index * (span + 1) + np.arange(span + 1)) % len(tokens)
            want_inputs.append(tokens[at[:-1]])
            want_targets.append(tokens[at[1:]])
        parts = [load(folder, rank=r, size=size).step_at(start) for r in range(size)]
        for rank, batches in enumerate(parts):
            inputs, targets = flat(batches)
            share = slice(rank * 8 // size, (rank + 1) * 8 // size)
            assert np.array_equal(inputs, np.concatenate(want_inputs[share]))
            assert np.array_equal(targets, np.concatenate(want_targets[share]))
            assert all(b.inputs.shape[1] == ROWS.seq_len for b in batches)


@pytest.mark.parametrize("config", [ROWS, PACKED], ids=["rows", "packed"])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_token_order_does_not_depend_on_the_number_of_processes(
    shards: tuple[Path, np.ndarray], config: Loader, size: int
) -> None:
    folder, _ = shards
    alone = list(islice(load(folder, config), 5))
    together = [list(islice(load(folder, config, rank=r, size=size), 5)) for r in range(size)]
    for step in range(5):
        joined = [b for rank in together for b in rank[step]]
        for one, many in zip(flat(alone[step]), flat(joined), strict=True):
            assert np.array_equal(one, many)
    counts = [sum(b.inputs.numel() for b in rank[0]) for rank in together]
    assert sum(counts) == config.batch_tokens
    assert max(counts) - min(counts) <= config.batch_tokens // config.rows_per_step


@pytest.mark.parametrize("micro", [1, 8, 24, 100, 256, 10_000])
def test_micro_batches_keep_the_tokens_and_the_limit(shards: tuple[Path, np.ndarray], micro: int) -> None:
    folder, _ = shards
    whole, parts = load(folder).step_at(0), load(folder, micro=micro).step_at(0)
    for one, many in zip(flat(whole), flat(parts), strict=True):
        assert np.array_equal(one, many)
    assert all(b.inputs.numel() <= max(micro, ROWS.seq_len) for b in parts)
    for batch in parts:
        assert torch.equal(batch.context.document_start, row_context(batch.inputs, BOS).document_start)


def test_resuming_by_position_gives_the_same_steps(shards: tuple[Path, np.ndarray]) -> None:
    folder, _ = shards
    first = load(folder)
    steps = list(islice(first, 9))
    again = load(folder)
    iterator = iter(again)
    for _ in range(4):
        next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert again.position == 4 * again.config.spans * (
        again.config.span_tokens + 1
    )  # read ahead, never handed out: not counted
    rest = load(folder)
    rest.position = again.position
    for want, found in zip(steps[4:], islice(rest, 5), strict=True):
        assert np.array_equal(flat(want)[0], flat(found)[0])


# ------------------------------------------------------------------------------------------------- packed rows


@given(
    length=st.integers(1, 300),
    starts=st.sets(st.integers(0, 299), max_size=12),
    max_seqlen=st.integers(1, 80),
    bos=st.sampled_from([0, 1, 7]),
)
@settings(max_examples=150, deadline=None)
def test_packed_context_cuts_at_documents_and_at_the_longest_segment(
    length: int, starts: set[int], max_seqlen: int, bos: int
) -> None:
    tokens = torch.full((1, length), 9)
    heads = sorted({0} | {s for s in starts if s < length})
    for head in heads[1:] if 0 not in starts else heads:
        tokens[0, head] = bos
    context = packed_context(tokens, bos, max_seqlen)
    assert context.cu_seqlens is not None
    offsets = context.cu_seqlens.tolist()
    want = [cut for a, b in zip(heads, [*heads[1:], length], strict=True) for cut in range(a, b, max_seqlen)]
    assert offsets[: len(want)] == want
    assert set(offsets[len(want) :]) == {length}
    assert len(offsets) % 64 == 0
    assert len(offsets) - (len(want) + 1) < 64
    assert context.cu_seqlens.dtype == torch.int32
    assert max(b - a for a, b in pairwise(offsets)) <= max_seqlen
    assert np.flatnonzero(context.document_start[0]).tolist() == heads


def test_positions_count_from_the_start_of_what_attention_sees() -> None:
    tokens = torch.tensor([[5, 6, BOS, 7, 8, BOS, BOS, 9, 10, 11]])
    assert row_context(tokens, BOS).positions.tolist() == list(range(10))
    assert packed_context(tokens, BOS, 3).positions.tolist() == [0, 1, 0, 1, 2, 0, 0, 1, 2, 0]


def test_only_a_packed_row_hides_the_token_before_a_document() -> None:
    tokens = torch.tensor([[5, 6, BOS, 7]])
    assert row_context(tokens, BOS).nothing_before().tolist() == [[True, False, False, False]]
    assert packed_context(tokens, BOS, 4).nothing_before().tolist() == [[True, False, True, False]]


def test_stretches_packed_into_one_row_do_not_see_each_other() -> None:
    tokens = torch.tensor([[5, 6, 7, 8, 9, BOS, 3, 4]])
    context = packed_context(tokens, BOS, 8, span_tokens=4)
    assert context.document_start.tolist() == [[True, False, False, False, True, True, False, False]]
    assert context.cu_seqlens is not None
    assert context.cu_seqlens.tolist()[:5] == [0, 4, 5, 8, 8]


def test_packing_takes_one_row_a_span_and_keeps_the_next_documents_start_as_target(
    shards: tuple[Path, np.ndarray],
) -> None:
    folder, tokens = shards
    assert [tuple(b.inputs.shape) for b in load(folder, PACKED, micro=96).step_at(0)] == [(1, 64), (1, 96), (1, 96)]
    batches = load(folder, PACKED).step_at(0)
    assert [tuple(b.inputs.shape) for b in batches] == [(1, 256)]
    inputs, targets = flat(batches)
    assert np.array_equal(inputs[1:32], targets[:31])
    assert BOS in targets
    assert np.array_equal(np.concatenate([tokens[33 * i : 33 * i + 32] for i in range(8)]), inputs)


def test_the_tail_of_a_shard_is_carried_over(shards: tuple[Path, np.ndarray]) -> None:
    folder, tokens = shards
    seen = np.concatenate([flat(step)[0] for step in islice(load(folder, PACKED), 3)])
    want = np.concatenate([tokens[33 * i : 33 * i + 32] for i in range(24)])
    assert np.array_equal(seen, want)  # 792 tokens, over two shard ends


# ------------------------------------------------------------------------------------------------- the thread


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "loader"]


def test_the_reading_thread_ends_with_its_consumer(shards: tuple[Path, np.ndarray]) -> None:
    iterator = iter(load(shards[0]))
    next(iterator)
    assert len(loader_threads()) == 1
    iterator.close()  # type: ignore[attr-defined]
    assert not loader_threads()


class BrokenDisk(StepLoader):
    def _cut(self, loader: Loader, position: int) -> tuple[list[Batch], int]:
        if position > 0:
            raise DataError("the disk is gone")
        return super()._cut(loader, position)


def test_an_error_while_reading_ahead_reaches_the_consumer(shards: tuple[Path, np.ndarray]) -> None:
    loader = BrokenDisk(shards[0], ROWS, BOS, World(), micro_batch_tokens=256)
    iterator = iter(loader)
    assert flat(next(iterator))[0].shape == (256,)
    with pytest.raises(DataError, match="the disk is gone"):
        next(iterator)
    assert not loader_threads()
    assert loader.position == loader.config.spans * (loader.config.span_tokens + 1)


# ------------------------------------------------------------------------------------------------- refusals


def test_refusals_name_the_numbers(shards: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="9 processes, but a step has only 8 rows"):
        load(shards[0], PACKED, size=9)
    with pytest.raises(ConfigError, match=r"batch_tokens = 250 must be a multiple of spans \* seq_len = 64"):
        SequentialRows(batch_tokens=250, seq_len=8, spans=8).frozen()
    with pytest.raises(ConfigError, match="batch_tokens = 255 must be a multiple of spans = 8"):
        DocumentPacking(batch_tokens=255).frozen()
    with pytest.raises(DataError, match="has no train shards"):
        load(tmp_path)


@pytest.mark.parametrize("config", [ROWS, PACKED], ids=["rows", "packed"])
def test_synthetic_steps_have_the_shapes_of_real_ones(shards: tuple[Path, np.ndarray], config: Loader) -> None:
    for rank in range(3):
        real = load(shards[0], config, rank=rank, size=3, micro=64).step_at(0)
        made = synthetic_step(config, 64, BOS, World(rank, 3), 64)
        assert [b.inputs.shape for b in made] == [b.inputs.shape for b in real]
        for a, b in zip(made, real, strict=True):
            assert (a.context.cu_seqlens is None) == (b.context.cu_seqlens is None)
        assert flat(made)[0].max() < 64
