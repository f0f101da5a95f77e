"""The score: bits and bytes, every target once, whatever the window, the batch or the number of processes."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from support import BOS, VOCAB, busy, dense, document_tokens, tiny_config
from underpar.core.config import PositiveInt, config
from underpar.core.errors import ScoreError
from underpar.core.units import BITS_PER_NAT, bits_per_byte
from underpar.core.world import World
from underpar.data.context import Context, packed_context
from underpar.data.validation import ValStream
from underpar.evaluate.score import Score, charge, score
from underpar.evaluate.windows import ONE_DOCUMENT, Contiguous, Documents, Flat, Sliding, Span, Window
from underpar.nn.lookback import SmearGate


def make_stream(count: int, seed: int = 0) -> ValStream:
    tokens = document_tokens(count, seed=seed)
    byte_counts = np.random.default_rng(seed).integers(1, 9, count).astype(np.int32)
    byte_counts[tokens == BOS] = 0
    return ValStream(tokens, byte_counts, np.flatnonzero(tokens == BOS).astype(np.int64))


def history_costs(tokens: Tensor, targets: Tensor, context: Context) -> Tensor:
    """A predictor that can be added up by hand: exact in float32, and different for another target or history length."""
    return (targets * 64 + context.positions).float() / 64


def by_hand(stream: ValStream, window: Window) -> np.ndarray:
    """Nats of every target with `history_costs`, one target at a time in float64."""
    charges = []
    for span in window.spans(len(stream.tokens) - 1, stream.document_starts):
        for position in range(span.score_from, span.stop):
            charges.append(float(stream.tokens[position + 1]) + (position - span.start) / 64)
    return np.array(charges)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    context = draw(st.integers(1, 33))
    stride = draw(st.integers(1, context))
    return draw(
        st.sampled_from([Flat(context=context), Sliding(context=context, stride=stride), Documents(context=context)])
    )


@given(st.integers(2, 200), windows(), st.integers(1, 300), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_score_equals_a_loop_over_targets(count: int, window: Window, batch_tokens: int, seed: int) -> None:
    stream = make_stream(count, seed)
    if stream.byte_counts[1:].sum() == 0:
        return
    found = score(history_costs, stream, window, bos_id=BOS, batch_tokens=batch_tokens)
    charges = by_hand(stream, window)
    assert found.tokens == len(charges) == count - 1
    assert found.bits == pytest.approx(charges.sum() * BITS_PER_NAT, rel=1e-12)
    assert found.bytes == int(stream.byte_counts[1:].sum())
    assert found.documents == len(stream.document_starts)
    for index, (a, b) in enumerate(zip(stream.document_starts, [*stream.document_starts[1:], count], strict=True)):
        targets = slice(max(a, 1), b)
        own = slice(max(a, 1) - 1, b - 1)
        assert found.document_bits[index] == pytest.approx(charges[own].sum() * BITS_PER_NAT, rel=1e-9, abs=1e-12)
        assert found.document_bytes[index] == stream.byte_counts[targets].sum()
        assert found.document_tokens[index] == b - max(a, 1)
    assert found.document_bits.sum() == pytest.approx(found.bits, rel=1e-12)
    assert found.bpb == pytest.approx(bits_per_byte(found.loss_nats, found.tokens, found.bytes), rel=1e-12)


@pytest.mark.parametrize("window", [Flat(context=24), Sliding(context=24, stride=7)], ids=str)
def test_a_real_model_scores_as_a_naive_float64_loop(window: Window) -> None:
    """Each target alone, from its own window, in float64: no batching, no padding."""
    model = busy(tiny_config())
    stream = make_stream(101)
    found = score(model, stream, window, bos_id=BOS, batch_tokens=100)
    exact = busy(tiny_config()).double()
    exact.compute_dtype = torch.float64
    nats = 0.0
    with torch.no_grad():
        for span in window.spans(100):
            for position in range(span.score_from, span.stop):
                tokens = torch.from_numpy(stream.tokens[span.start : position + 1].astype(np.int64))[None]
                logits = exact.head.projection(exact.hidden(tokens, dense(tokens)))[0, -1]
                capped = 30.0 * torch.tanh(logits / 30.0)
                nats -= float(torch.log_softmax(capped, 0)[int(stream.tokens[position + 1])])
    assert found.bits == pytest.approx(nats * BITS_PER_NAT, rel=1e-5)  # float32 against float64


def test_a_uniform_predictor_costs_log2_of_the_vocabulary() -> None:
    stream = make_stream(77)
    found = score(
        lambda _t, targets, _c: torch.full(targets.shape, float(np.log(VOCAB))), stream, Flat(context=16), bos_id=BOS
    )
    assert found.bits == pytest.approx(76 * np.log2(VOCAB), rel=1e-6)


def test_no_tail_is_dropped() -> None:
    """1,000 targets in rows of 64: the last row has 40."""
    found = score(history_costs, make_stream(1_001), Flat(context=64), bos_id=BOS, batch_tokens=256)
    assert found.tokens == 1_000


def test_every_pass_has_one_shape_and_padding_costs_nothing() -> None:
    shapes = set()

    def watch(tokens: Tensor, targets: Tensor, context: Context) -> Tensor:
        shapes.add(tuple(tokens.shape))
        return torch.ones(targets.shape)

    found = score(watch, make_stream(101), Sliding(context=16, stride=5), bos_id=BOS, batch_tokens=64)
    assert shapes == {(4, 16)}
    assert found.loss_nats == pytest.approx(1.0, rel=1e-12)


# ------------------------------------------------------------------------------------------------- processes


class Imagined(World):
    """One rank of a world whose other ranks' shares are added by the test."""

    def sum_(self, tensor: Tensor) -> Tensor:
        return tensor


@pytest.mark.parametrize("size", [2, 3, 7])
def test_shares_of_ranks_add_up_to_one_process(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank's ledger, caught before the check, sums to the whole one; no rank repeats another's work."""
    from underpar.evaluate import score as module

    stream, window = make_stream(333), Sliding(context=16, stride=5)
    caught: list[tuple[np.ndarray, np.ndarray]] = []
    monkeypatch.setattr(module, "_check_ledger", lambda charges, counts: caught.append((charges, counts)))
    for rank in range(size):
        score(history_costs, stream, window, bos_id=BOS, world=Imagined(rank, size))
    assert (np.sum([counts for _, counts in caught], axis=0) == 1).all()
    total = np.sum([charges for charges, _ in caught], axis=0)
    assert np.allclose(total, by_hand(stream, window), rtol=0, atol=1e-9)
    shares = [int(counts.sum()) for _, counts in caught]
    assert max(shares) - min(shares) <= window.stride + window.context


# ------------------------------------------------------------------------------------------------- the ledger


@config
class Twice(Window):
    """Scores its last targets again."""

    context: PositiveInt = 16

    def spans(self, targets: int, document_starts: np.ndarray = ONE_DOCUMENT) -> Iterator[Span]:
        yield from Flat(context=self.context).spans(targets)
        yield Span(targets - 3, targets - 3, targets)


@config
class Gap(Window):
    """Forgets the first half of every row after the first."""

    context: PositiveInt = 16

    def spans(self, targets: int, document_starts: np.ndarray = ONE_DOCUMENT) -> Iterator[Span]:
        for span in Flat(context=self.context).spans(targets):
            yield span._replace(score_from=span.start + (8 if span.start else 0))


@config
class Often(Window):
    """Scores the first target 257 times: once more than a byte can count."""

    context: PositiveInt = 16

    def spans(self, targets: int, document_starts: np.ndarray = ONE_DOCUMENT) -> Iterator[Span]:
        yield from Flat(context=self.context).spans(targets)
        for _ in range(256):
            yield Span(0, 0, 1)


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (Twice(), r"3 of 99 tokens were not scored exactly once; the first is 96, scored 2 times"),
        (Gap(), r"43 of 99 tokens were not scored exactly once; the first is 16, scored 0 times"),
        (Often(), r"1 of 99 tokens were not scored exactly once; the first is 0, scored 257 times"),
    ],
    ids=["twice", "gap", "often"],
)
def test_targets_charged_twice_or_never_are_an_error(window: Window, said: str) -> None:
    with pytest.raises(ScoreError, match=said):
        score(history_costs, make_stream(100), window, bos_id=BOS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.5])
def test_a_charge_that_is_no_cost_is_an_error(bad: float) -> None:
    def cheat(_tokens: Tensor, targets: Tensor, _context: Context) -> Tensor:
        costs = torch.ones(targets.shape)
        costs[0, 7] = bad
        return costs

    with pytest.raises(ScoreError, match=r"token 7 costs .* a charge must be finite and not negative"):
        score(cheat, make_stream(100), Flat(context=16), bos_id=BOS)


def test_a_text_of_no_bytes_has_no_score() -> None:
    stream = make_stream(50)
    with pytest.raises(ScoreError, match="0 bytes"):
        score(
            history_costs, replace(stream, byte_counts=np.zeros_like(stream.byte_counts)), Flat(context=16), bos_id=BOS
        )


def test_a_stream_without_targets_has_no_score() -> None:
    for window in (Flat(context=16), Sliding(context=16, stride=4)):
        with pytest.raises(ScoreError):
            score(history_costs, make_stream(1), window, bos_id=BOS)


def test_json_keeps_bits_bytes_and_their_ratio() -> None:
    found = score(history_costs, make_stream(60), Flat(context=16), bos_id=BOS)
    data = found.to_json()
    assert isinstance(found, Score)
    assert data["bits"] / data["bytes"] == data["bpb"] == found.bpb
    assert "document_bits" not in data


@pytest.mark.parametrize("batch_tokens", [16, 40, 64, 1000])
def test_documents_are_scored_as_if_each_were_alone_whatever_shares_the_pass(batch_tokens: int) -> None:
    """Smear looks back one token, rotations start at each document: neither may depend on how rows were filled."""
    config = tiny_config()
    config.smear = SmearGate()
    model = busy(config.frozen())
    stream = make_stream(300, seed=2)
    found = charge(model, stream, Documents(context=16), bos_id=BOS, batch_tokens=batch_tokens)
    bounds = [*stream.document_starts.tolist(), len(stream.tokens)]
    with torch.no_grad():
        for start, stop in pairwise(bounds):
            piece = torch.from_numpy(stream.tokens[start : min(start + 16, stop) + 1].astype(np.int64))[None]
            if piece.shape[1] < 2:
                continue
            alone = model(piece[:, :-1], piece[:, 1:], dense(piece[:, :-1]))[0].numpy()
            np.testing.assert_allclose(found[start : start + len(alone)], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [8, 16, 64, 1000])
def test_contiguous_stretches_are_the_same_whatever_a_batch_holds(batch_tokens: int) -> None:
    """Each stretch by itself, attention restarting at its documents."""
    model, stream = busy(tiny_config()), make_stream(300, seed=2)
    found = charge(model, stream, Contiguous(context=16), bos_id=BOS, batch_tokens=batch_tokens)
    tokens = torch.from_numpy(stream.tokens.astype(np.int64))
    for start in range(0, len(tokens) - 1, 16):
        row = tokens[start : start + 17].unsqueeze(0)
        inputs, targets = row[:, :-1], row[:, 1:]
        with torch.no_grad():
            wanted = model(inputs, targets, packed_context(inputs, BOS, 16))[0]
        np.testing.assert_allclose(found[start : start + 16], wanted.numpy(), rtol=1e-5, atol=1e-5)
