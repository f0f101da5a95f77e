"""Test-time training: scored first, every token once, the same whatever shares or schedules the work."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from ttt_jobs import ADAPTATIONS, documents, phased, rank_job, sequential, small_model, small_stream, stream_of

from launcher import Launcher
from support import BOS, VOCAB, dense, document_tokens
from underpar.core.errors import ConfigError, DataError
from underpar.data.validation import ValStream
from underpar.evaluate.adaptation import Adaptation, AdapterAdamW, DocumentTTT, PhasedTTT, WarmStart
from underpar.evaluate.adapted import AdaptedCharges
from underpar.evaluate.phased import Rates, boundaries, text_of
from underpar.evaluate.queue import documents_of
from underpar.evaluate.score import charge
from underpar.evaluate.scorers import adapted_charges, adaptive_scorer
from underpar.evaluate.windows import Documents, Sliding
from underpar.model.gpt import GPT
from underpar.recipes import registry

ROUNDING = {"rtol": 0.0, "atol": 2e-5}
"""Other shapes of a float32 pass, carried on by a few updates."""


def charged(adaptation: Adaptation, stream: ValStream, model: GPT | None = None) -> np.ndarray:
    return adapted_charges(adaptive_scorer(adaptation, model or small_model(), bos_id=BOS), stream.tokens, bos_id=BOS)


def by_hand(model: GPT, adaptation: DocumentTTT, stream: ValStream) -> np.ndarray:
    """One document after another, one row at a time, with torch's own AdamW."""
    layout, settings = model.adapter_layout(adaptation.lora), adaptation.optimiser
    nats = np.full(len(stream.tokens) - 1, np.nan)
    model.requires_grad_(False)
    for document in documents_of(stream.document_starts, len(nats)):
        row = torch.zeros(1, layout.numbers)
        seed = torch.Generator().manual_seed((adaptation.start.seed << 32) + document.number)
        layout.begin(row[0], layout.bounds(), seed)
        row.requires_grad_()
        adamw = torch.optim.AdamW(
            [row], settings.lr, (settings.beta1, settings.beta2), settings.eps, settings.weight_decay
        )
        for first in range(document.start, document.stop, adaptation.chunk_tokens):
            stop = min(first + adaptation.chunk_tokens, document.stop)
            window = max(document.start, stop - adaptation.context)
            tokens, targets = (
                torch.from_numpy(stream.tokens[a : a + stop - window].astype(np.int64))[None]
                for a in (window, window + 1)
            )
            new: Tensor = model(tokens, targets, dense(tokens), visitor=layout.visitor(row))[0, first - window :]
            nats[first:stop] = new.detach().numpy()
            adamw.zero_grad()
            new.mean().backward()
            adamw.step()
    return nats


@pytest.mark.parametrize("beta1", [0.0, 0.7])
def test_many_documents_at_a_time_equal_one_after_another_by_hand(beta1: float) -> None:
    adaptation, stream = documents(optimiser=AdapterAdamW(lr=0.01, beta1=beta1)), small_stream()
    found = charged(adaptation, stream)
    np.testing.assert_allclose(found, by_hand(small_model(), adaptation, stream), **ROUNDING)
    assert abs(found - charged(documents(optimiser=AdapterAdamW(lr=0.0)), stream)).max() > 0.01


@pytest.mark.parametrize("changes", [{"slots": 1}, {"slots": 50}, {"step_tokens": 1}, {"step_tokens": 4096}], ids=str)
def test_slots_and_batches_do_not_change_fresh_documents(changes: dict[str, int]) -> None:
    stream = small_stream()
    np.testing.assert_allclose(charged(documents(**changes), stream), charged(documents(), stream), **ROUNDING)


def test_without_learning_it_is_scoring_by_documents() -> None:
    stream, still = small_stream(), documents(optimiser=AdapterAdamW(lr=0.0), context=128, step_tokens=256)
    plain = charge(small_model(), stream, Documents(context=128), bos_id=BOS, batch_tokens=256)
    np.testing.assert_allclose(charged(still, stream), plain, **ROUNDING)


def test_without_learning_the_sequential_form_is_sliding_windows() -> None:
    stream = small_stream()
    plain = charge(small_model(), stream, Sliding(context=16, stride=6), bos_id=BOS, batch_tokens=64)
    np.testing.assert_allclose(charged(sequential(lr=0.0), stream), plain, **ROUNDING)


def test_adaptation_helps_on_text_that_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    phrase = rng.integers(2, VOCAB, 11).astype(np.uint16)
    stream = stream_of(np.concatenate([[BOS], *[phrase] * 20]).astype(np.uint16))
    for adaptation in (documents(), sequential()):
        nats = charged(adaptation, stream)
        assert nats[-44:].mean() < 0.8 * nats[:44].mean()


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_every_target_once_the_same_again_and_the_weights_as_before(name: str) -> None:
    model, stream = small_model(), small_stream()
    before = copy.deepcopy(model.state_dict())
    first, again = (charged(ADAPTATIONS[name](), stream, model) for _ in range(2))
    assert first.shape == (len(stream.tokens) - 1,)
    assert (first > 0).all()
    assert np.array_equal(first, again)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def flipped(tokens: np.ndarray, place: int) -> np.ndarray:
    """Another future: from `place` on every token is another one, document starts excepted."""
    other = tokens.copy()
    text = np.flatnonzero(tokens != BOS)
    later = text[text >= place]
    other[later] = (other[later] - 2 + 17) % (VOCAB - 2) + 2
    return other


@pytest.mark.parametrize("name", ["documents", "warm", "phased", "sequential"])
@pytest.mark.parametrize("place", [40, 260])
def test_no_charge_depends_on_tokens_behind_it(name: str, place: int) -> None:
    stream = small_stream()
    found, other = (charged(ADAPTATIONS[name](), s) for s in (stream, stream_of(flipped(stream.tokens, place))))
    assert np.array_equal(found[: place - 1], other[: place - 1])
    assert not np.array_equal(found[place:], other[place:])
    begun = stream.tokens.copy()
    begun[place + 4 :: 9] = BOS  # more documents: other passes share their rows, so rounding may differ
    np.testing.assert_allclose(charged(ADAPTATIONS[name](), stream_of(begun))[:place], found[:place], **ROUNDING)


@pytest.mark.parametrize("name", ["warm, longest first", "phased, longest first"])
def test_within_a_document_longest_first_scores_first_too(name: str) -> None:
    """The last document completed is the shortest: another end of it changes nothing before."""
    stream = small_stream()
    last = min(documents_of(stream.document_starts, len(stream.tokens) - 1), key=lambda d: (d.tokens, -d.number))
    other = stream.tokens.copy()
    changed = last.stop - 1
    other[changed] = 2 + (other[changed] + 5) % (VOCAB - 2)
    found, moved = (charged(ADAPTATIONS[name](), s) for s in (stream, stream_of(other)))
    assert np.array_equal(np.delete(found, [changed - 1, changed]), np.delete(moved, [changed - 1, changed]))


def test_a_warm_start_inherits_and_a_fresh_one_does_not() -> None:
    tokens = small_stream().tokens
    other = tokens.copy()
    other[1:6] = (other[1:6] - 2 + 9) % (VOCAB - 2) + 2  # the first document reads otherwise
    fourth = int(np.flatnonzero(tokens == BOS)[3])
    for start, inherits in ((WarmStart(), True), (None, False)):
        adaptation = documents(**({"start": start} if start else {}))
        a, b = (charged(adaptation, stream_of(t))[fourth:] for t in (tokens, other))
        assert np.array_equal(a, b) is not inherits


@pytest.mark.parametrize("name", ["warm", "phased", "sequential"])
def test_two_processes_find_what_one_finds(launcher: Launcher, tmp_path: Path, name: str) -> None:
    launcher.together(2, rank_job, str(tmp_path), name)
    ranks = [np.load(tmp_path / f"rank{rank}.npy") for rank in (0, 1)]
    assert np.array_equal(*ranks)
    np.testing.assert_allclose(ranks[0], charged(ADAPTATIONS[name](), small_stream()), rtol=0.0, atol=1e-4)


# ------------------------------------------------------------------------------------------------- phases


def test_boundaries_are_the_ends_of_equal_parts() -> None:
    assert boundaries(2000, 3) == [666, 1333, 2000]
    assert boundaries(2500, 3) == [833, 1666, 2500]
    assert boundaries(1, 3) == [1]
    assert boundaries(0, 3) == []


@pytest.mark.parametrize(("recipe", "stops"), [("golf/pr1736", [5, 10, 16]), ("golf/pr1855", [7, 14, 21])])
def test_the_small_track_scales_the_phases_with_its_text(recipe: str, stops: list[int]) -> None:
    adaptation = registry.resolve(recipe, track="golf-mini").config.evaluate.adaptation
    assert isinstance(adaptation, PhasedTTT)
    assert boundaries(adaptation.prefix_documents, adaptation.phases) == stops


def test_the_first_phase_is_plain_and_later_documents_meet_other_weights() -> None:
    stream = small_stream()
    adaptation = phased()
    as_documents = DocumentTTT(
        **{name: getattr(adaptation, name) for name in ("lora", "optimiser", "context", "chunk_tokens", "slots")}
    ).frozen()
    found, without = charged(adaptation, stream), charged(as_documents, stream)
    first = documents_of(stream.document_starts, len(found))[boundaries(7, 2)[0]].start
    np.testing.assert_allclose(found[:first], without[:first], **ROUNDING)
    assert abs(found[first:] - without[first:]).max() > 1e-3


def test_sgd_with_a_rate_of_zero_changes_nothing() -> None:
    stream, sgd = small_stream(), phased().sgd
    still = type(sgd)(lr=0.0, chunk_tokens=sgd.chunk_tokens, context=sgd.context)
    found, without = charged(phased(sgd=still), stream), charged(phased(prefix_documents=0), stream)
    np.testing.assert_allclose(found, without, **ROUNDING)


def test_no_document_start_follows_a_document_start() -> None:
    tokens = document_tokens(200, mean_length=12, seed=3)
    found = documents_of(np.flatnonzero(tokens == BOS), 199)
    text = text_of(tokens, found)
    assert np.array_equal(text, tokens)  # whole and in order it is the stream itself
    backwards = text_of(tokens, found[::-1])
    lonely = sum(d.tokens == 1 for d in found)  # a document of nothing but its start
    assert ((backwards[1:] == BOS) & (backwards[:-1] == BOS)).sum() <= lonely
    assert len(backwards) == len(tokens)


# ------------------------------------------------------------------------------------------------- budget


def scored(adaptation: Adaptation, budget: float) -> AdaptedCharges:
    return adaptive_scorer(adaptation, small_model(), bos_id=BOS).charge(small_stream(), budget_seconds=budget)


@pytest.mark.parametrize("adaptation", [documents(), phased(), sequential()], ids=lambda a: type(a).__name__)
def test_a_budget_that_is_too_small_still_charges_everything_and_says_so(adaptation: Adaptation) -> None:
    found = scored(adaptation, 1e-9)
    window = Sliding(context=16, stride=6) if adaptation.context == 16 else Documents(context=32)
    plain = charge(small_model(), small_stream(), window, bos_id=BOS, batch_tokens=2048)
    assert found.planned_seconds < 1.0 or not isinstance(adaptation, DocumentTTT)
    assert found.plain_targets > 0
    np.testing.assert_allclose(found.nats, plain, **ROUNDING)


@pytest.mark.parametrize("adaptation", [documents(), phased(), sequential()], ids=lambda a: type(a).__name__)
def test_a_generous_budget_changes_nothing(adaptation: Adaptation) -> None:
    found = scored(adaptation, 1e6)
    assert found.plain_targets == 0
    assert found.planned_seconds > 0
    assert np.array_equal(found.nats, charged(adaptation, small_stream()))


def test_a_plan_that_fits_in_part_gives_up_the_longest_documents_first() -> None:
    scorer = adaptive_scorer(documents(), small_model(), bos_id=BOS)
    every = documents_of(small_stream().document_starts, 299)
    rates = Rates({}, {16: 1.0, 32: 2.0}, 0.0, 0.0)
    whole = scorer._seconds(every, [], rates)  # type: ignore[attr-defined]
    given_up = scorer._given_up(every, rates, 0.6 * whole)  # type: ignore[attr-defined]
    assert 0 < len(given_up) < len(every)
    assert min(d.tokens for d in given_up) >= max(d.tokens for d in every if d not in given_up)
    assert scorer._seconds(every, given_up, rates) <= 0.6 * whole  # type: ignore[attr-defined]
    assert scorer._seconds(every, given_up[:-1], rates) > 0.6 * whole  # type: ignore[attr-defined]


def test_where_the_clock_runs_out_the_rest_is_charged_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is slower than its warm-up said: steps stop at the deadline, and nothing stays uncharged."""
    from underpar.evaluate import document_ttt

    ticks = iter(range(10_000))
    run = document_ttt.DocumentTrainer.run

    def slow(self: object, *args: object, **options: object) -> bool:
        monkeypatch.setattr(document_ttt.time, "perf_counter", lambda: next(ticks))
        try:
            return run(self, *args, **(options | {"deadline": 9.0}))  # type: ignore[arg-type]
        finally:
            monkeypatch.undo()

    monkeypatch.setattr(document_ttt.DocumentTrainer, "run", slow)
    found = adaptive_scorer(phased(), small_model(), bos_id=BOS).charge(small_stream())
    assert 0 < found.plain_targets < 299
    assert (found.nats > 0).all()


# ------------------------------------------------------------------------------------------------- refusals


def test_a_stream_without_documents_is_refused() -> None:
    tokens = document_tokens(40)
    nowhere = ValStream(tokens, np.ones(40, dtype=np.int32), np.zeros(0, dtype=np.int64))
    later = ValStream(tokens[1:], np.ones(39, dtype=np.int32), np.flatnonzero(tokens[1:] == BOS))
    for adaptation in (documents(), sequential()):
        for stream in (nowhere, later):
            with pytest.raises(DataError, match="does not begin with a document start"):
                adaptive_scorer(adaptation, small_model(), bos_id=BOS).charge(stream)
        with pytest.raises(DataError, match="predicts nothing"):
            charged(adaptation, stream_of(tokens[:1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: documents(chunk_tokens=64), "chunk_tokens = 64 must not exceed context = 32"),
        (lambda: sequential(stride=17), "stride = 17 must not exceed context = 16"),
        (lambda: sequential(chunk_tokens=50), "chunk_tokens = 50 must be a multiple of context = 16"),
        (lambda: PhasedTTT(prefix_documents=-1).frozen(), "prefix_documents = -1 is out of range"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
