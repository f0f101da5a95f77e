"""Scoring from left to right in stretches: each is charged through sliding windows, then the weights learn from it."""

import time
from itertools import groupby

import numpy as np

from underpar.data.validation import ValStream
from underpar.evaluate.adaptation import SequentialTTT
from underpar.evaluate.adapted import AdaptedCharges, Meter, Parts, Watcher, check_documents
from underpar.evaluate.base_sgd import BaseSGD, cosine, restored
from underpar.evaluate.score import Ledger, batch_tokens_on, charge_spans
from underpar.evaluate.windows import Sliding, Span
from underpar.model.gpt import GPT


class SequentialScorer:
    """An `AdaptiveScorer` for SequentialTTT. Rows and windows are dense: attention spans them, across documents."""

    def __init__(self, adaptation: SequentialTTT, model: GPT, parts: Parts) -> None:
        self._model, self._parts = model, parts
        self._window = Sliding(context=adaptation.context, stride=adaptation.stride)
        self._chunk, self._context = adaptation.chunk_tokens, adaptation.context
        self._lr, self._momentum, self._clip = adaptation.lr, adaptation.momentum, adaptation.clip
        self._epochs = adaptation.epochs
        self._batch_tokens = batch_tokens_on(parts.world.device)

    def charge(
        self, stream: ValStream, *, budget_seconds: float | None = None, watcher: Watcher | None = None
    ) -> AdaptedCharges:
        check_documents(stream)
        with restored(self._model):
            self._model.requires_grad_(False)
            began = time.perf_counter()
            charging, learning = self._prepare(measures=budget_seconds is not None)
            warm_up = time.perf_counter() - began
            return self._charge(stream, charging, learning, warm_up, budget_seconds, watcher)

    def _charge(
        self, stream: ValStream, charging: float, learning: float, warm_up: float, budget: float | None,
        watcher: Watcher | None,
    ) -> AdaptedCharges:  # fmt: skip
        world, targets = self._parts.world, len(stream.tokens) - 1
        spans = self._window.spans(targets)
        stretches = [list(group) for _, group in groupby(spans, lambda span: span.score_from // self._chunk)]
        began = time.perf_counter()
        ledger, sgd = Ledger(targets), self._sgd()
        meter = Meter(watcher, stream, targets // world.size, lambda: ledger.charges)
        learnt, seen = 0, 0
        for index, stretch in enumerate(stretches):
            self._charge_stretch(stream, stretch, ledger)
            seen = stretch[-1].stop
            meter((stretch[-1].stop - stretch[0].score_from) // world.size)
            left = len(stretches) - index - 1
            (elapsed,) = world.agree(time.perf_counter() - began)
            fits = budget is None or elapsed + learning + left * charging <= budget
            if left and fits:
                self._learn(sgd, stream.tokens[index * self._chunk : min(seen, (index + 1) * self._chunk) + 1],
                            self._lr * cosine(index, len(stretches)))  # fmt: skip
                learnt += 1
        trained = self._chunk * learnt
        nats = ledger.closed(world)
        planned = len(stretches) * charging + (len(stretches) - 1) * learning
        short = learnt < len(stretches) - 1
        plain = max(0, targets - trained - self._chunk) if short else 0
        measured = {"charging": charging, "learning": learning} if planned else {}
        return AdaptedCharges(nats, time.perf_counter() - began, warm_up, planned, measured, plain)

    def _charge_stretch(self, stream: ValStream, spans: list[Span], ledger: Ledger) -> None:
        world = self._parts.world
        mine = [spans[i] for i in world.share(len(spans))]
        charge_spans(
            self._parts.plain, stream, self._window, mine, ledger, bos_id=self._parts.bos_id, device=world.device,
            batch_tokens=self._batch_tokens,
        )  # fmt: skip

    def _learn(self, sgd: BaseSGD, text: np.ndarray, lr: float) -> None:
        for _ in range(self._epochs):
            sgd.step(text, lr)

    def _sgd(self) -> BaseSGD:
        return BaseSGD(
            self._model, momentum=self._momentum, clip=self._clip, context=self._context, packs=False,
            bos_id=self._parts.bos_id, world=self._parts.world,
        )  # fmt: skip

    def _prepare(self, *, measures: bool) -> tuple[float, float]:
        """Seconds of charging a stretch and of learning from it, on random tokens; the weights stay as they are."""
        if not measures and self._parts.compiler is None:  # nothing compiles, and nothing is planned
            return 0.0, 0.0
        tokens = np.random.default_rng(0).integers(2, self._model.config.vocab_size, self._chunk + 1).astype(np.uint16)
        tokens[0] = self._parts.bos_id
        stream = ValStream(tokens, np.ones(len(tokens), dtype=np.int32), np.zeros(1, dtype=np.int64))
        spans = list(self._window.spans(self._chunk))
        with restored(self._model):
            sgd = self._sgd()
            for _ in range(2):
                began = time.perf_counter()
                self._charge_stretch(stream, spans, Ledger(self._chunk))
                charged = time.perf_counter()
                self._learn(sgd, tokens, 0.0)
                learnt = time.perf_counter()
        charging, learning = self._parts.world.agree(charged - began, learnt - charged)
        return charging, learning
