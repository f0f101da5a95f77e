"""Predictors that learn while they are scored: the house's own pass; the same loop in the wrong order is refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from underpar.core.errors import ScoreError
from underpar.core.world import World
from underpar.data.context import row_context
from underpar.data.sample import sample_documents
from underpar.data.tokenizer_base import ByteTokenizer
from underpar.evaluate.adaptation import (
    Adaptation,
    AdapterAdamW,
    DocumentTTT,
    GlobalSGD,
    LongestFirst,
    PhasedTTT,
    SequentialTTT,
    WarmStart,
)
from underpar.evaluate.base_sgd import BaseSGD
from underpar.evaluate.document_ttt import DocumentTrainer
from underpar.evaluate.queue import Document, lineages
from underpar.model.gpt import GPT, GPTConfig
from underpar.nn.adapters import LoRA
from underpar.nn.attention import Attention
from underpar.referee.adapted import SMALL_CHUNKS, SMALL_ROWS, AdaptedPredictor, in_the_small
from underpar.referee.plan import Plan
from underpar.referee.predictor import CallablePredictor, Predictor
from underpar.referee.ranks import on_ranks
from underpar.referee.verdict import Ruling, Verdict

from .attacks.judging import failed, judged

VOCAB, BOS = 260, ByteTokenizer().bos_id
CHUNK, CONTEXT = 16, 64
FAST = AdapterAdamW(lr=0.05)
DOCUMENT = DocumentTTT(lora=LoRA(rank=4), optimiser=FAST, context=CONTEXT, chunk_tokens=CHUNK, slots=2).frozen()
WARM = DocumentTTT(
    lora=LoRA(rank=4), optimiser=FAST, start=WarmStart(), context=CONTEXT, chunk_tokens=CHUNK, slots=2
).frozen()
STILL = DocumentTTT(lora=LoRA(rank=4), optimiser=AdapterAdamW(lr=0.0), context=CONTEXT, chunk_tokens=CHUNK).frozen()
SGD = GlobalSGD(lr=0.3, chunk_tokens=16, context=16)
PHASED = PhasedTTT(
    lora=LoRA(rank=4),
    optimiser=FAST,
    context=CONTEXT,
    chunk_tokens=CHUNK,
    slots=2,
    prefix_documents=3,
    phases=2,
    sgd=SGD,
).frozen()
PLAN = Plan(
    segment_tokens=160, flip_trials=3, canaries=("uniform",), canary_tokens=160, sweep_positions=1, sweep_ids=8, swaps=1,
    boundaries=1, warm_up=True, world=3, whole_stream=True,
)  # fmt: skip

ORDERS = Plan(segment_tokens=180, flip_trials=2, canaries=(), swaps=1, whole_stream=True)
FLIPS = Plan(segment_tokens=160, flip_trials=2, canaries=(), whole_stream=True)


@pytest.fixture(scope="module")
def model() -> GPT:
    config = GPTConfig(vocab_size=VOCAB, num_layers=2, model_dim=32, attention=Attention(num_heads=2, num_kv_heads=1))
    torch.manual_seed(3)
    made = config.frozen().build().float()
    with torch.no_grad():
        for param in made.parameters():
            param.add_(0.05 * torch.randn_like(param))
    made.compute_dtype = torch.float32
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    tokenizer = ByteTokenizer()
    parts = [np.append([BOS], tokenizer.encode_ids(d.text[:39])) for d in sample_documents("val")][:4]
    return np.concatenate(parts).astype(np.uint16)


def passed(verdict: Verdict) -> set[str]:
    return {check.id for check in verdict.checks if check.passed}


@pytest.mark.parametrize("adaptation", [DOCUMENT, WARM, PHASED], ids=["document", "warm", "phased"])
def test_test_time_training_is_valid(model: GPT, text: np.ndarray, adaptation: DocumentTTT) -> None:
    box = AdaptedPredictor(model, adaptation, VOCAB, BOS)
    assert box.charges(text).sum() < AdaptedPredictor(model, STILL, VOCAB, BOS).charges(text).sum() - 1.0, "it learns"
    verdict = judged(box, text, plan=PLAN)
    assert failed(verdict) == {}, verdict.reason
    assert verdict.ruling is Ruling.VALID
    assert {
        "causality.flip", "causality.order", "process.repeats", "process.warm_up", "process.world", "canary.uniform"
    } <= passed(verdict)  # fmt: skip


def test_adapters_of_a_document_leave_the_next_one_alone(model: GPT, text: np.ndarray) -> None:
    verdict = judged(AdaptedPredictor(model, DOCUMENT, VOCAB, BOS), text, plan=replace(FLIPS, swaps=1, boundaries=2))
    assert {"causality.isolation", "causality.order"} <= passed(verdict)
    assert next(c for c in verdict.checks if c.id == "causality.order").evidence["later_change_nats"] == 0.0


# ------------------------------------------------------------------------------------------------- the wrong order


def by_chunks(model: GPT, tokens: np.ndarray, *, learns_first: bool) -> np.ndarray:
    """SGD on the weights, a step on every chunk: before it is charged, or after."""
    learner = copy.deepcopy(model).requires_grad_(True)
    sgd = torch.optim.SGD(learner.parameters(), lr=0.1)
    charges = np.empty(len(tokens) - 1)
    for first in range(0, len(charges), CHUNK):
        stop = min(first + CHUNK, len(charges))
        window = max(0, stop - CONTEXT)
        inputs, targets = (
            torch.from_numpy(tokens[shift + window : shift + stop].astype(np.int64))[None] for shift in (0, 1)
        )
        for learns in (learns_first, not learns_first):
            losses = learner(inputs, targets, row_context(inputs, BOS))[0, first - window :]
            if learns:
                sgd.zero_grad()
                losses.mean().backward()
                sgd.step()
            else:
                charges[first:stop] = losses.detach().double().numpy()
    return charges


def test_a_chunk_is_charged_and_then_learnt(model: GPT, text: np.ndarray) -> None:
    honest, cheat = (
        CallablePredictor(lambda tokens, first=first: by_chunks(model, tokens, learns_first=first), VOCAB, BOS)
        for first in (False, True)
    )
    assert cheat.charges(text).sum() < honest.charges(text).sum() - 1.0
    assert judged(honest, text, plan=FLIPS).ruling is Ruling.VALID
    refused(cheat, text)


def test_a_first_epoch_that_is_not_charged_is_seen(model: GPT, text: np.ndarray) -> None:
    """The honest evaluator, given the text twice; the second time is reported."""
    box = AdaptedPredictor(model, PHASED, VOCAB, BOS)
    refused(CallablePredictor(lambda tokens: box.charges(np.tile(tokens, 2))[len(tokens) :], VOCAB, BOS), text)


def refused(box: Predictor, text: np.ndarray) -> None:
    verdict = judged(box, text, plan=FLIPS)
    assert verdict.ruling is Ruling.INVALID
    assert "V01" in failed(verdict)["causality.flip"]


def test_stretches_learnt_one_after_the_other_are_valid(model: GPT, text: np.ndarray) -> None:
    adaptation = SequentialTTT(context=32, stride=16, chunk_tokens=32, lr=0.1, epochs=1).frozen()
    verdict = judged(AdaptedPredictor(model, adaptation, VOCAB, BOS), text, plan=PLAN)
    assert failed(verdict) == {}, verdict.reason
    assert "process.world" in passed(verdict)


# ------------------------------------------------------------------------------------------------- the longest first


@pytest.fixture(scope="module")
def uneven() -> np.ndarray:
    """Five documents of 18 to 40 tokens; neither the first nor the last is the longest."""
    lengths = [26, 40, 18, 33, 22]
    return np.concatenate(
        [
            np.append([BOS], ByteTokenizer().encode_ids(d.text[: n - 1]))[:n]
            for d, n in zip(sample_documents("val"), lengths, strict=False)
        ]
    ).astype(np.uint16)


def longest_first(adaptation: DocumentTTT) -> DocumentTTT:
    twin = copy.deepcopy(adaptation)
    twin.order = LongestFirst()
    return twin.frozen()


@pytest.mark.parametrize("adaptation", [WARM, PHASED], ids=["warm", "phased"])
def test_the_longest_first_is_disputed_where_documents_learn_from_each_other(
    model: GPT, uneven: np.ndarray, adaptation: DocumentTTT
) -> None:
    verdict = judged(AdaptedPredictor(model, longest_first(adaptation), VOCAB, BOS), uneven, plan=ORDERS)
    assert verdict.ruling is Ruling.DISPUTED, verdict.reason
    assert failed(verdict).keys() == {"causality.arrangement"}
    assert [reading["verdict"] for reading in verdict.readings] == ["valid", "invalid"]


def test_the_longest_first_is_valid_where_they_do_not(model: GPT, uneven: np.ndarray) -> None:
    verdict = judged(AdaptedPredictor(model, longest_first(DOCUMENT), VOCAB, BOS), uneven, plan=ORDERS)
    assert verdict.ruling is Ruling.VALID, verdict.reason


def test_the_longest_first_with_an_epoch_before_is_invalid(model: GPT, uneven: np.ndarray) -> None:
    box = AdaptedPredictor(model, longest_first(PHASED), VOCAB, BOS)
    refused(CallablePredictor(lambda tokens: box.charges(np.tile(tokens, 2))[len(tokens) :], VOCAB, BOS), uneven)


# ------------------------------------------------------------------------------------------------- several processes


SEQUENTIAL = SequentialTTT(context=2048, stride=64, chunk_tokens=32_768, lr=0.1, epochs=1).frozen()


def test_everything_happens_in_the_small(uneven: np.ndarray) -> None:
    published = PhasedTTT(order=LongestFirst(), start=WarmStart(), prefix_documents=2500)
    small = in_the_small(published, uneven, BOS)
    assert (small.slots, small.prefix_documents, small.phases) == (1, 4, 3)
    assert small.sgd.chunk_tokens * 3 < len(uneven) // 2, "the last phase learns from several chunks"
    assert type(small.order) is LongestFirst
    assert (small.optimiser, small.lora, small.context) == (published.optimiser, published.lora, published.context)
    small = in_the_small(SEQUENTIAL, uneven, BOS)
    assert small.chunk_tokens * SMALL_CHUNKS <= len(uneven)
    assert small.context * SMALL_ROWS == small.chunk_tokens


@pytest.mark.parametrize("adaptation", [PHASED, SEQUENTIAL], ids=["phased", "sequential"])
def test_ranks_that_learn_apart_are_found(
    model: GPT, uneven: np.ndarray, adaptation: Adaptation, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(FLIPS, flip_trials=1, world=3)
    assert "process.world" in passed(judged(AdaptedPredictor(model, adaptation, VOCAB, BOS), uneven, plan=plan))
    monkeypatch.setattr(BaseSGD, "_reduce", lambda self: None)
    verdict = judged(AdaptedPredictor(model, adaptation, VOCAB, BOS), uneven, plan=plan)
    assert failed(verdict).keys() == {"process.world"}
    assert verdict.ruling is Ruling.DISPUTED


def test_slots_that_are_dealt_out_by_rank_are_found(
    model: GPT, uneven: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents inherit from those of their own process, as in a script whose processes draw from one list."""

    def own_share(self: DocumentTrainer, documents: list[Document]) -> list[list[Document]]:
        return lineages(documents[self._world.rank :: self._world.size], self._slots)

    monkeypatch.setattr(DocumentTrainer, "share_of", own_share)
    verdict = judged(AdaptedPredictor(model, WARM, VOCAB, BOS), uneven, plan=replace(FLIPS, flip_trials=1, world=2))
    assert failed(verdict).keys() == {"process.world"}


def test_a_rank_that_fails_does_not_leave_the_others_waiting(model: GPT, uneven: np.ndarray) -> None:
    def work(world: World) -> np.ndarray:
        if world.rank == 1:
            raise ScoreError("of rank 1")
        return world.sum_(torch.zeros(1)).numpy()

    with pytest.raises(ScoreError, match="of rank 1"):
        on_ranks(3, "cpu", work)
