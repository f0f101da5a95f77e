"""Steps that begin every span with a document, and change their shape from one to the next."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from support import BOS, write_train_shards
from underpar.core.errors import ConfigError, DataError
from underpar.core.phase import StepShape
from underpar.core.world import World
from underpar.data.aligned import AlignedDocuments
from underpar.data.context import Batch
from underpar.data.loaders import StepLoader

LENGTHS = (7, 30, 4, 50, 12, 3, 25, 9, 40, 16) * 40


def stream_of(lengths: tuple[int, ...]) -> np.ndarray:
    """Documents whose second token is their number, and whose later tokens count up."""
    parts = []
    for number, length in enumerate(lengths):
        tokens = np.arange(1000, 1000 + length, dtype=np.uint16)
        tokens[:2] = BOS, 100 + number
        parts.append(tokens)
    return np.concatenate(parts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    whole = stream_of(LENGTHS)
    write_train_shards(tmp_path, whole[:3001], whole[3001:])  # a document crosses the shards
    return tmp_path


def loader(folder: Path, *, world: World | None = None, **fields: int) -> StepLoader:
    chosen = AlignedDocuments(**({"batch_tokens": 256, "seq_len": 20, "spans": 8} | fields)).frozen()  # type: ignore[arg-type]
    return StepLoader(folder, chosen, BOS, world or World(), micro_batch_tokens=1)


def rows(step: list[Batch]) -> list[np.ndarray]:
    """Each span with its last target."""
    return [np.append(batch.inputs[0].numpy(), batch.targets[0, -1].item()) for batch in step]


def test_every_span_begins_with_a_document_and_is_full(folder: Path) -> None:
    steps = loader(folder)
    for _ in range(4):
        found = rows(steps.fetch())
        assert [len(row) for row in found] == [33] * 8
        assert all(row[0] == BOS for row in found)
    steps.close()


def test_documents_come_in_order_and_are_cut_off_where_the_rule_says(folder: Path) -> None:
    """By the published loop, written out again."""
    steps, number = loader(folder), 0
    for _ in range(3):
        for row in rows(steps.fetch()):
            filled = 0
            while filled < 33:
                assert row[filled] == BOS
                taken = min(LENGTHS[number], 20, 33 - filled)
                if taken > 1:
                    assert row[filled + 1] == 100 + number
                    assert list(row[filled + 2 : filled + taken]) == list(range(1002, 1000 + taken))
                filled += taken
                number += 1
    steps.close()


def test_segments_are_the_documents(folder: Path) -> None:
    batch = loader(folder).step_at(0)[0]
    offsets = batch.context.cu_seqlens
    assert offsets is not None
    assert offsets[0] == 0
    assert offsets[-1] == 32
    starts = np.flatnonzero(batch.inputs[0].numpy() == BOS)
    assert offsets[: len(starts)].tolist() == starts.tolist()
    assert int(offsets.diff().max()) <= 20
    assert batch.context.positions[starts].tolist() == [0] * len(starts)


def test_a_cut_off_document_learns_to_predict_the_next_ones_beginning(folder: Path) -> None:
    """As in the published loader: targets are the packed row moved on, not the text."""
    batch = loader(folder).step_at(0)[0]
    ends = np.flatnonzero(batch.inputs[0].numpy() == BOS)[1:] - 1
    assert set(batch.targets[0].numpy()[ends].tolist()) == {BOS}


def test_any_number_of_processes_sees_the_same_spans_in_order(folder: Path) -> None:
    alone = loader(folder)
    first, second = rows(alone.step_at(0)), rows(alone.step_at(alone.config.read(alone.stream, 0, BOS)[1]))
    for size in (2, 3, 8):
        shares = [loader(folder, world=World(rank=rank, size=size)) for rank in range(size)]
        for step in (first, second):
            together = [row for share in shares for row in rows(share.fetch())]
            assert np.array_equal(np.stack(together), np.stack(step))
        for share in shares:
            share.close()


def test_a_shape_asked_for_takes_effect_with_that_step(folder: Path) -> None:
    steps = loader(folder)
    shapes = [StepShape(256, 20), StepShape(256, 20), StepShape(512, 20), StepShape(512, 8), StepShape(256, 8)]
    for shape in shapes:
        found = steps.fetch(shape)
        assert sum(batch.inputs.numel() for batch in found) == shape.batch_tokens
        assert {batch.context.max_seqlen for batch in found} == {shape.seq_len}
    steps.close()


def test_what_was_read_ahead_in_another_shape_is_read_again(folder: Path) -> None:
    """Position is the whole state: a change of shape neither skips text nor repeats it."""
    steps = loader(folder)
    steps.fetch(StepShape(256, 20))
    steps.fetch(StepShape(256, 20))
    position = steps.position
    after = rows(steps.fetch(StepShape(512, 8)))
    fresh = loader(folder)
    assert np.array_equal(np.stack(after), np.stack(rows(fresh.step_at(position, StepShape(512, 8)))))
    steps.close()


def test_shorter_documents_use_the_shards_up_faster(folder: Path) -> None:
    config = AlignedDocuments(batch_tokens=256, seq_len=20, spans=8).frozen()
    stream = loader(folder).stream
    ends = [config.shaped(StepShape(256, length)).read(stream, 0, BOS)[1] for length in (50, 20, 5)]
    assert ends == sorted(ends)
    assert len(set(ends)) == 3


def test_used_up_shards_are_an_error_and_epochs_go_on(folder: Path) -> None:
    once, twice = loader(folder), loader(folder, epochs=2)

    def read_all(steps: StepLoader) -> int:
        count = 0
        with suppress(DataError):
            while True:
                steps.fetch()
                count += 1
        with pytest.raises(DataError, match=r"are used up.*data\.loader\.epochs"):
            steps.fetch()
        steps.close()
        return count

    first = read_all(once)
    assert 2 * first <= read_all(twice) <= 2 * first + 1


def test_the_second_epoch_begins_with_the_first_document(folder: Path) -> None:
    config = AlignedDocuments(batch_tokens=64, seq_len=20, spans=2, epochs=2).frozen()
    stream = loader(folder).stream
    spans, position = config.read(stream, stream.total_tokens, BOS)
    assert spans[0, 1] == 100
    assert position > stream.total_tokens


def test_shards_without_documents_are_refused(tmp_path: Path) -> None:
    write_train_shards(tmp_path, np.full(4_000, 7, dtype=np.uint16))
    with pytest.raises(DataError, match="no BOS"):
        loader(tmp_path).fetch()


def test_a_shape_that_cannot_be_divided_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="batch_tokens = 100 must be a multiple of spans = 8"):
        loader(folder).fetch(StepShape(100, 20))


def test_a_run_resumes_at_its_position(folder: Path) -> None:
    steps = loader(folder)
    for _ in range(3):
        steps.fetch()
    again = loader(folder)
    again.position = steps.position
    assert np.array_equal(np.stack(rows(again.fetch())), np.stack(rows(steps.fetch())))
    for each in (steps, again):
        each.close()
