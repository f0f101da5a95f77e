"""Documents: their order must not reach back; fixed, adapting and leaking predictors are told apart."""

import numpy as np
import pytest

from underpar.referee.probes.documents import document_isolation, document_order, document_segment

from .streams import BOS, adaptive, box, fixed, stream, table


def document_mean(tokens: np.ndarray) -> np.ndarray:
    """A cheat: a charge knows how long the first document is."""
    return fixed(tokens) + 0.01 * int(np.flatnonzero(tokens == BOS)[1])


def sees_order(tokens: np.ndarray) -> np.ndarray:
    """A cheat: every charge knows where the longest document stands."""
    starts = np.flatnonzero(tokens == BOS)
    return fixed(tokens) + 0.01 * int(np.argmax(np.diff(np.append(starts, len(tokens)))))


def look_back(tokens: np.ndarray) -> np.ndarray:
    """A local leak: the token before the last is mixed in, over the start of a document as well."""
    before = np.concatenate([[BOS], tokens[:-2]])
    return -np.log(0.7 * table()[tokens[:-1], tokens[1:]] + 0.3 * table(1)[before, tokens[1:]])


def uneven(seed: int = 0) -> np.ndarray:
    """Documents of different lengths."""
    lengths = np.random.default_rng(seed).integers(12, 60, 14)
    return np.concatenate([stream(int(n), seed + int(n), document=10**6) for n in lengths])


def test_an_honest_fixed_predictor_does_not_know_the_order() -> None:
    found = document_order(box(fixed), uneven(), seed=1, swaps=3)
    assert found is not None
    assert found.earlier_change_nats == 0.0
    assert found.is_fixed
    assert found.swaps == 3


def test_an_adaptive_one_changes_later_documents_only() -> None:
    found = document_order(box(adaptive), uneven(), seed=1, swaps=3)
    assert found is not None
    assert found.earlier_change_nats == 0.0
    assert not found.is_fixed


def test_knowledge_of_the_order_moves_earlier_charges() -> None:
    found = document_order(box(sees_order), uneven(3), seed=2, swaps=6)
    assert found is not None
    assert found.earlier_change_nats > 1e-3
    assert found.first_moved == 1


def test_isolation_tells_none_local_and_whole_apart() -> None:
    apart, local, whole = (document_isolation(box(f), uneven(), 1, 3) for f in (fixed, look_back, adaptive))
    assert apart is not None
    assert local is not None
    assert whole is not None
    assert (apart.last_change_nats, apart.earlier_change_nats) == (0.0, 0.0)
    assert local.last_change_nats > 1e-3
    assert local.earlier_change_nats == 0.0
    assert whole.earlier_change_nats > 1e-3


def test_a_stream_with_too_few_documents_is_left_out() -> None:
    tokens = stream(100, document=10**6)
    assert document_order(box(fixed), tokens, 1, 2) is None
    assert document_isolation(box(fixed), tokens, 1, 2) is None


def test_the_segment_is_where_the_documents_are_short() -> None:
    tokens = np.concatenate([stream(300, document=100), stream(100, 2, document=10), stream(300, 3, document=100)])
    found = document_segment(tokens, BOS, 90)
    assert (found == BOS).sum() == 9
    assert found[0] == BOS
    assert len(document_segment(tokens, None, 50)) == 50


def test_document_mean_moves_when_lengths_differ() -> None:
    found = document_order(box(document_mean), uneven(5), seed=1, swaps=1)
    assert found is not None
    assert found.earlier_change_nats == pytest.approx(0.0, abs=1e-9), "its first document is never exchanged"
