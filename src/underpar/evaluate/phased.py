"""Scoring by documents with adapters, and in between, where phases are wanted, the model itself learns."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from underpar.core.world import World
from underpar.data.validation import ValStream
from underpar.evaluate.adaptation import DocumentTTT, GlobalSGD, LongestFirst, PhasedTTT
from underpar.evaluate.adapted import AdaptedCharges, Meter, Parts, Watcher, check_documents
from underpar.evaluate.base_sgd import BaseSGD, restored, trained_chunks
from underpar.evaluate.document_ttt import Book, DocumentTrainer
from underpar.evaluate.ngram_cache import NgramMixer
from underpar.evaluate.queue import Document, chunks, documents_of, lineages, share, steps, window_tokens
from underpar.evaluate.score import Ledger, batch_tokens_on, charge
from underpar.evaluate.windows import Documents
from underpar.model.gpt import GPT

MARGIN = 1.05
"""Of a plan over what the warm-up measured."""
MOST_REPLAYED_CHUNKS = 200_000
"""Up to here a plan counts the passes of the real schedule, in some seconds; beyond, it takes an upper bound."""


class Rates(NamedTuple):
    """What the warm-up measured, in seconds."""

    measured: dict[str, float]
    steps: dict[int, float]
    """Of a pass, by the width of its rows, the adapters' update included."""
    sgd_chunk: float
    cached_target: float


class DocumentScorer:
    """An `AdaptiveScorer` for DocumentTTT and PhasedTTT."""

    def __init__(self, adaptation: DocumentTTT, model: GPT, parts: Parts) -> None:
        self._model, self._parts = model, parts
        self.trainer = DocumentTrainer(adaptation, model, parts)
        self._slots, self._context = adaptation.slots, adaptation.context
        self._cache = NgramMixer(adaptation.cache) if adaptation.cache else None
        self._longest_first = isinstance(adaptation.order, LongestFirst)
        self._rates: Rates | None = None
        self._phases: _Phases | None = None
        if isinstance(adaptation, PhasedTTT):
            self._phases = _Phases(adaptation, model, parts)

    def charge(
        self, stream: ValStream, *, budget_seconds: float | None = None, watcher: Watcher | None = None
    ) -> AdaptedCharges:
        check_documents(stream)
        with restored(self._model):
            self._model.requires_grad_(False)
            began = time.perf_counter()
            rates = self._prepare(measures=budget_seconds is not None)
            warm_up = time.perf_counter() - began
            return self._charge(stream, rates, warm_up, budget_seconds, watcher)

    def _prepare(self, *, measures: bool) -> Rates:
        """Compile what is compiled, once, and measure it."""
        if not measures and self._parts.compiler is None:  # nothing is planned
            if self._cache:
                self._cache.prepare()
            return Rates({}, dict.fromkeys(self.trainer.shapes.widths, 0.0), 0.0, 0.0)
        if self._rates is None:
            self._rates = self._measured()
        return self._rates

    def _measured(self) -> Rates:
        cache = self._cache.prepare() if self._cache else 0.0
        seconds = self.trainer.prepare()
        sgd = self._phases.prepare() if self._phases else 0.0
        measured = {f"rows of {width}": taken for width, taken in seconds.items()}
        if self._phases:
            measured["sgd chunk"] = sgd
        if self._cache:
            measured["cached target"] = cache
        *agreed, sgd, cache = self._parts.world.agree(*seconds.values(), sgd, cache)
        return Rates(measured, dict(zip(seconds, agreed, strict=True)), sgd, cache)

    def _charge(
        self, stream: ValStream, rates: Rates, warm_up: float, budget: float | None, watcher: Watcher | None
    ) -> AdaptedCharges:
        world, targets = self._parts.world, len(stream.tokens) - 1
        documents = documents_of(stream.document_starts, targets)
        if self._longest_first:
            documents.sort(key=lambda d: (-d.tokens, d.number))
        shapes = self.trainer.shapes
        plain_seconds = targets * max(t / (shapes.rows(w) * w) for w, t in rates.steps.items())
        for_cache = targets * rates.cached_target
        left = None if budget is None else budget - plain_seconds - for_cache
        without = self._given_up(documents, rates, left)
        planned = self._seconds(documents, without, rates) + for_cache

        began = time.perf_counter()
        deadline = None if left is None else began + left
        book, ledger = Book(stream.tokens, world.device), Ledger(targets)
        if without:
            self._charge_plain(stream, ledger, _positions(without, targets))
        mine = sum(d.tokens for one in self.trainer.share_of(_kept(documents, without)) for d in one)
        meter = Meter(watcher, stream, mine, book.nats)
        first = 0
        for stop in self._boundaries(len(documents)):
            kept = _kept(documents[first:stop], without)
            done = self.trainer.run(kept, book, deadline=deadline, progress=meter)
            if not _all_agree(done, world):
                break
            first = stop
            if self._phases and stop < len(documents):
                read = documents[:stop]
                self._phases.learn(text_of(stream.tokens, read[::-1] if self._longest_first else read))
        ledger.charges += book.nats()
        ledger.counts += book.counts
        missing = world.sum_(torch.from_numpy(ledger.counts.copy()).to(world.device)).cpu().numpy() == 0
        if missing.any():
            self._charge_plain(stream, ledger, missing)
        plain_targets = int(missing.sum()) + sum(d.tokens for d in without)
        nats = ledger.closed(world)
        if self._cache:
            nats = self._cache.charges(nats, stream)
        return AdaptedCharges(nats, time.perf_counter() - began, warm_up, planned, rates.measured, plain_targets)

    def _boundaries(self, documents: int) -> list[int]:
        inner = self._phases.boundaries if self._phases else []
        return [*(stop for stop in inner if stop < documents), documents]

    def _charge_plain(self, stream: ValStream, ledger: Ledger, positions: np.ndarray) -> None:
        """Charge `positions` (targets,) bool with the model as it is now. Collective; one process books."""
        world = self._parts.world
        nats = charge(
            self._parts.plain, stream, Documents(context=self._context), bos_id=self._parts.bos_id, world=world,
            batch_tokens=batch_tokens_on(world.device),
        )  # fmt: skip
        if world.is_main:
            ledger.book(positions, nats[positions])

    def _given_up(self, documents: Sequence[Document], rates: Rates, budget: float | None) -> list[Document]:
        """The fewest documents, longest first, without whose adaptation the rest fits: they cost most seconds a token, and
        bound the time from below, since a document's chunks follow each other.
        """
        by_length = sorted(documents, key=lambda d: (-d.tokens, d.number))
        low, high = 0, len(by_length)
        if budget is None or self._seconds(documents, [], rates) <= budget:
            return []
        while low < high:
            middle = (low + high) // 2
            if self._seconds(documents, by_length[:middle], rates) <= budget:
                high = middle
            else:
                low = middle + 1
        return by_length[:low]

    def _seconds(self, documents: Sequence[Document], without: Sequence[Document], rates: Rates) -> float:
        """What adapting to all but `without` takes: of every phase the slowest process, and the rounds of SGD."""
        total, first = 0.0, 0
        for stop in self._boundaries(len(documents)):
            slots = lineages(_kept(documents[first:stop], without), self._slots)
            total += self._phase_seconds(slots, rates)
            if self._phases and stop < len(documents):
                total += self._phases.steps(sum(d.tokens for d in documents[:stop])) * rates.sgd_chunk
            first = stop
        return total * MARGIN

    def _phase_seconds(self, slots: list[list[Document]], rates: Rates) -> float:
        chunk, shapes, size = self.trainer.chunk, self.trainer.shapes, self._parts.world.size
        costs = [sum(window_tokens(d, chunk, shapes) for d in slot) for slot in slots]
        shares = share(costs, size)
        lengths = [sum(chunks(d, chunk) for d in slot) for slot in slots]
        if sum(lengths) <= MOST_REPLAYED_CHUNKS:
            passes = (steps([slots[i] for i in part], chunk, shapes) for part in shares)
            return max(sum(rates.steps[one.width] for one in mine) for mine in passes)
        token = max(taken / (shapes.rows(width) * width) for width, taken in rates.steps.items())
        return max(sum(costs[i] for i in part) for part in shares) * token + max(lengths) * max(rates.steps.values())


class _Phases:
    """The rounds of SGD between the phases."""

    def __init__(self, adaptation: PhasedTTT, model: GPT, parts: Parts) -> None:
        self.boundaries = boundaries(adaptation.prefix_documents, adaptation.phases)
        self._model, self._parts = model, parts
        self._sgd: GlobalSGD = adaptation.sgd
        self._lr, self._momentum, self._clip = self._sgd.lr, self._sgd.momentum, self._sgd.clip
        self._chunk, self._context, self._epochs = self._sgd.chunk_tokens, self._sgd.context, self._sgd.epochs

    def steps(self, tokens: int) -> int:
        return self._epochs * max(0, -(-(tokens - 1) // self._chunk) - 1)

    def learn(self, text: np.ndarray) -> None:
        """A round over `text`; nothing is left of it but the weights. Collective."""
        sgd = self._new()
        for _ in range(self._epochs):
            for part, scale in trained_chunks(text, self._chunk):
                sgd.step(part, self._lr * scale)

    def prepare(self) -> float:
        """Seconds of a step, on random tokens; the weights stay as they are."""
        tokens = np.random.default_rng(0).integers(2, self._model.config.vocab_size, self._chunk + 1).astype(np.uint16)
        with restored(self._model):
            sgd = self._new()
            sgd.step(tokens, 0.0)
            began = time.perf_counter()
            sgd.step(tokens, 0.0)
            return time.perf_counter() - began

    def _new(self) -> BaseSGD:
        return BaseSGD(
            self._model, momentum=self._momentum, clip=self._clip, context=self._context, packs=True,
            bos_id=self._parts.bos_id, world=self._parts.world,
        )  # fmt: skip


def boundaries(prefix: int, phases: int) -> list[int]:
    """Numbers of documents after which the weights learn: ends of equal parts of `prefix`, empty parts left out."""
    return sorted({prefix * (i + 1) // phases for i in range(phases)} - {0})


def text_of(tokens: np.ndarray, documents: Sequence[Document]) -> np.ndarray:
    """The documents' own tokens one after another: each from its start to before the next, so that no start follows a start."""
    last = len(tokens) - 1
    return np.concatenate([tokens[d.start : d.stop + (d.stop == last)] for d in documents])


def _kept(documents: Sequence[Document], without: Sequence[Document]) -> list[Document]:
    left_out = {d.number for d in without}
    return [d for d in documents if d.number not in left_out]


def _positions(documents: Sequence[Document], targets: int) -> np.ndarray:
    chosen = np.zeros(targets, dtype=bool)
    for document in documents:
        chosen[document.start : document.stop] = True
    return chosen


def _all_agree(done: bool, world: World) -> bool:
    failed = torch.tensor([0.0 if done else 1.0], device=world.device)
    return float(world.sum_(failed)) == 0
