"""The static schedule: every chunk once and in order, few shapes, full passes, balanced shares."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from underpar.evaluate.queue import Document, Shapes, chunks, documents_of, lineages, share, steps, window_tokens

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=25)


def documents(lengths: list[int]) -> list[Document]:
    starts = np.cumsum([0, *lengths[:-1]])
    return documents_of(starts, sum(lengths))


@given(LENGTHS, st.integers(1, 8), st.integers(1, 9), st.integers(9, 40), st.integers(1, 200))
def test_every_target_once_in_the_order_of_its_document(
    lengths: list[int], slots: int, chunk: int, context: int, step_tokens: int
) -> None:
    shapes, found = Shapes.of(context, step_tokens), documents(lengths)
    targets: dict[int, list[int]] = {d.number: [] for d in found}
    running: dict[int, int] = {}
    cost = 0
    for step in steps(lineages(found, slots), chunk, shapes):
        assert 1 <= len(step.rows) <= shapes.rows(step.width)
        assert len({row.slot for row in step.rows}) == len(step.rows)
        for row in step.rows:
            cost += step.width
            assert row.stop - row.window == min(row.stop - row.document.start, context) <= step.width
            assert row.begins == (not targets[row.document.number])
            assert running.get(row.slot) in (None, row.document.number)
            running[row.slot] = row.document.number if row.goes_on else None  # type: ignore[assignment]
            targets[row.document.number] += range(row.first, row.stop)
    assert [t for d in found for t in targets[d.number]] == list(range(sum(lengths)))
    assert cost == sum(window_tokens(d, chunk, shapes) for d in found)


def test_a_slot_goes_on_with_the_next_document_at_once() -> None:
    found = documents([4, 40, 4, 4, 4, 4, 4, 4, 4, 4, 4])
    passes = [len(step.rows) for step in steps(lineages(found, 2), 4, Shapes.of(40, 80))]
    assert len(passes) < sum(chunks(d, 4) for d in found)
    assert max(passes) == 2


def test_document_i_follows_document_i_minus_slots() -> None:
    found = documents([3] * 8)
    assert [[d.number for d in slot] for slot in lineages(found, 3)] == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert len(lineages(found, 64)) == 8


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 9))
def test_shares_are_a_partition_and_balanced(costs: list[int], size: int) -> None:
    parts = share(costs, size)
    assert sorted(i for part in parts for i in part) == list(range(len(costs)))
    loads = [sum(costs[i] for i in part) for part in parts]
    assert max(loads) <= sum(costs) / size + max(costs)
    assert parts == share(costs, size)


def test_documents_end_where_the_next_begins_and_an_empty_tail_is_none() -> None:
    assert documents_of(np.array([0, 5, 9]), 12) == [Document(0, 0, 5), Document(1, 5, 9), Document(2, 9, 12)]
    assert documents_of(np.array([0, 5, 9]), 9) == [Document(0, 0, 5), Document(1, 5, 9)]
