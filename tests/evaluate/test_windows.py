"""Windows cut a stream so that every target is scored once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.core.errors import ConfigError
from underpar.evaluate.windows import Documents, Flat, Sliding, Span, Window

CONTEXTS = st.integers(1, 40)


@st.composite
def sliding(draw: st.DrawFn) -> Sliding:
    context = draw(CONTEXTS)
    return Sliding(context=context, stride=draw(st.integers(1, context)))


@given(
    st.one_of(st.builds(Flat, context=CONTEXTS), sliding(), st.builds(Documents, context=CONTEXTS)),
    st.integers(1, 400),
    st.sets(st.integers(0, 410), max_size=9),
)
def test_every_target_is_scored_once_and_in_order(window: Window, targets: int, starts: set[int]) -> None:
    spans = list(window.spans(targets, np.array(sorted(starts), dtype=np.int64)))
    scored = np.concatenate([np.arange(s.score_from, s.stop) for s in spans])
    assert np.array_equal(scored, np.arange(targets))
    for span in spans:
        assert 0 <= span.start <= span.score_from < span.stop <= targets
        assert span.stop - span.start <= window.context


@given(sliding(), st.integers(1, 400))
def test_sliding_starts_where_the_published_rule_does(window: Sliding, targets: int) -> None:
    """Starts w = 0, stride, 2 stride, ... while w + (context - stride) < targets; the first is scored whole."""
    overlap = window.context - window.stride
    starts = [0] + [w for w in range(window.stride, targets, window.stride) if w + overlap < targets]
    spans = list(window.spans(targets))
    assert [s.start for s in spans] == starts
    assert spans[0].score_from == 0
    assert spans[0].stop == min(window.context, targets)
    for span in spans[1:]:
        assert span.score_from == span.start + overlap
        assert span.score_from - span.start == overlap  # the history that every later token has at least


def test_windows_of_a_small_stream_by_hand() -> None:
    assert list(Sliding(context=8, stride=3).spans(15)) == [
        Span(0, 0, 8), Span(3, 8, 11), Span(6, 11, 14), Span(9, 14, 15),
    ]  # fmt: skip
    assert list(Flat(context=8).spans(15)) == [Span(0, 0, 8), Span(8, 8, 15)]
    assert list(Flat(context=8).spans(16)) == [Span(0, 0, 8), Span(8, 8, 16)]
    assert list(Documents(context=4).spans(12, np.array([0, 3, 9]))) == [
        Span(0, 0, 3), Span(3, 3, 7), Span(7, 7, 9), Span(9, 9, 12),
    ]  # fmt: skip


def test_sliding_by_its_own_context_is_flat() -> None:
    assert list(Sliding(context=7, stride=7).spans(50)) == list(Flat(context=7).spans(50))


def test_a_stride_that_would_skip_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="stride = 9 must not exceed context = 8"):
        Sliding(context=8, stride=9).frozen()
