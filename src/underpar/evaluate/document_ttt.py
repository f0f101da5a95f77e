"""Adapters of its own for every document, trained on what of it has been charged; many documents at a time.

The adapters of all slots are rows of one tensor. A step takes some rows, predicts the next chunk of their documents, books
the charges, and only then forms gradients and updates those rows in place. Source: golf PR #77, #1530.
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from underpar.data.context import Context, row_context
from underpar.evaluate.adaptation import AdapterAdamW, DocumentTTT, WarmStart
from underpar.evaluate.adapted import Parts
from underpar.evaluate.queue import Document, Row, Shapes, Step, lineages, share, steps, window_tokens
from underpar.model.gpt import GPT
from underpar.nn.adapters import AdapterLayout

TIMED_STEPS = 3
"""Steps of each shape that the warm-up times, after one that compiles."""


class AdaptedModel(nn.Module):
    """Losses of chosen positions under adapters of every row's own."""

    def __init__(self, model: GPT, layout: AdapterLayout) -> None:
        super().__init__()
        self.model, self.layout = model, layout

    def forward(self, tokens: Tensor, targets: Tensor, ctx: Context, where: Tensor, adapters: Tensor) -> Tensor:
        """tokens (B, T) int64; targets, where (B, C) int64, the target after each chosen position; adapters (B, numbers).

        Returns (B, C) float32 nats. The head sees the chosen positions alone.
        """
        visitor = self.layout.visitor(adapters.to(self.model.compute_dtype))
        hidden = self.model.hidden(tokens, ctx, visitor=visitor)
        chosen = hidden.gather(1, where.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return self.model.head.losses(chosen, targets, visitor.head())


class AdapterBank:
    """Adapters and optimiser state of every slot, float32, one row a slot. The last row belongs to nobody."""

    def __init__(self, layout: AdapterLayout, optimiser: AdapterAdamW, slots: int, device: str) -> None:
        self._layout, self._bounds = layout, layout.bounds(device)
        self.rows = torch.zeros(slots + 1, layout.numbers, device=device)
        self._first_moments, self._second_moments = torch.zeros_like(self.rows), torch.zeros_like(self.rows)
        self._ages = torch.zeros(slots + 1, device=device)
        self._generator = torch.Generator(device)
        self._settings: dict[str, Any] = {
            "lr": optimiser.lr,
            "beta1": optimiser.beta1,
            "beta2": optimiser.beta2,
            "eps": optimiser.eps,
            "weight_decay": optimiser.weight_decay,
            "amsgrad": False,
            "maximize": False,
        }

    @property
    def nobody(self) -> int:
        return len(self.rows) - 1

    def begin(self, slot: int, seed: int | None) -> None:
        """A new document: moments and step count are zero again, and A is drawn from `seed`, or kept where it is None."""
        generator = None if seed is None else self._generator.manual_seed(seed)
        self._layout.begin(self.rows[slot], self._bounds, generator)
        for state in (self._first_moments, self._second_moments, self._ages):
            state[slot].zero_()

    def clear(self) -> None:
        for state in (self.rows, self._first_moments, self._second_moments, self._ages):
            state.zero_()

    @torch.no_grad()
    def update(self, slots: Sequence[int], gradients: Sequence[Tensor]) -> None:
        """One AdamW step of these slots, each with its own step count."""
        states = (self.rows, self._first_moments, self._second_moments, self._ages)
        params, first, second, ages = ([state[slot] for slot in slots] for state in states)
        adamw(params, list(gradients), first, second, [], ages, fused=True, **self._settings)


class Book:
    """Tokens of a stream and their charges, on the device: a charge is written when it is computed, and never again."""

    def __init__(self, tokens: np.ndarray, device: str) -> None:
        self.targets = len(tokens) - 1
        self.tokens = torch.from_numpy(tokens.astype(np.int64)).to(device)
        self.counts = np.zeros(self.targets, dtype=np.int32)
        self._nats = torch.zeros(self.targets + 1, dtype=torch.float64, device=device)
        """The last cell takes what stands for no target."""

    def write(self, rows: Iterable[Row], positions: Tensor, losses: Tensor) -> None:
        """positions, losses (B, C): input positions of the stream, `targets` where there is none."""
        for row in rows:
            self.counts[row.first : row.stop] += 1
        self._nats[positions] = losses.detach().double()

    def nats(self) -> np.ndarray:
        """(targets,) float64, zero where nothing is charged yet."""
        return self._nats[:-1].cpu().numpy()


class Batch(NamedTuple):
    """The tensors of one step, on the device. B rows, T tokens, C targets; rows and targets that fill up are masked."""

    slots: Tensor
    """(B,) int64 rows of the bank."""
    tokens: Tensor
    """(B, T) int64."""
    where: Tensor
    """(B, C) int64, the place of each target's input in its row."""
    targets: Tensor
    """(B, C) int64."""
    positions: Tensor
    """(B, C) int64, what the target is in the stream."""
    weights: Tensor
    """(B, C) float32: the mean over a row's targets, zero for rows that learn no more."""


class DocumentTrainer:
    """Runs DocumentTTT over documents of one stream: the share of one process."""

    def __init__(self, adaptation: DocumentTTT, model: GPT, parts: Parts) -> None:
        self.chunk, self._gradient_steps = adaptation.chunk_tokens, adaptation.gradient_steps
        self._seed, self._is_warm = adaptation.start.seed, isinstance(adaptation.start, WarmStart)
        self._slots, self._bos_id, self._world = adaptation.slots, parts.bos_id, parts.world
        self.shapes = Shapes.of(adaptation.context, adaptation.step_tokens)
        self._vocab_size = model.config.vocab_size
        layout = model.adapter_layout(adaptation.lora)
        self._make_bank = functools.partial(AdapterBank, layout, adaptation.optimiser, device=self._world.device)
        module = AdaptedModel(model, layout)
        self._forward = parts.compiler(module) if parts.compiler else module
        self._is_compiled = parts.compiler is not None
        self._bank = self._make_bank(slots=0)

    def share_of(self, documents: Sequence[Document]) -> list[list[Document]]:
        """The lineages that are this process's, one a slot."""
        every = lineages(documents, self._slots)
        costs = [sum(window_tokens(d, self.chunk, self.shapes) for d in one) for one in every]
        return [every[i] for i in share(costs, self._world.size)[self._world.rank]]

    def prepare(self) -> dict[int, float]:
        """Compile and warm up every shape, and put everything back. Returns seconds of a step by width."""
        seconds = {}
        for width in self.shapes.widths:
            times = []
            for _ in range(1 + TIMED_STEPS):
                began = time.perf_counter()
                self.rehearse(width)
                times.append(time.perf_counter() - began)
            seconds[width] = min(times[1:])
        return seconds

    def rehearse(self, width: int) -> None:
        """A step on random tokens, to its end on the device, of which nothing remains."""
        count = self.shapes.rows(width)
        tokens = np.random.default_rng(0).integers(0, self._vocab_size, width + 2, dtype=np.int64).astype(np.uint16)
        row = Row(0, Document(0, 0, width + 1), 0, max(0, width - self.chunk), width)
        bank = self._bank_for(max(self.shapes.rows(w) for w in self.shapes.widths))
        step = Step(width, [row._replace(slot=slot) for slot in range(count)])
        self._step(step, bank, Book(tokens, self._world.device))
        bank.clear()
        if self._world.device != "cpu":
            torch.cuda.synchronize()

    def run(
        self,
        documents: Sequence[Document],
        book: Book,
        *,
        deadline: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> bool:
        """Charge this process's share of `documents`, whose order is that of the lineages.

        deadline: on the clock of time.perf_counter; nothing is begun after it. progress: called with targets charged.
        Returns whether all of the share is charged.
        """
        mine = self.share_of(documents)
        bank = self._bank_for(len(mine))
        drawn: set[int] = set()
        for step in steps(mine, self.chunk, self.shapes):
            if deadline is not None and time.perf_counter() > deadline:
                return False
            for row in step.rows:
                if row.begins:
                    keeps = self._is_warm and row.slot in drawn
                    bank.begin(row.slot, None if keeps else (self._seed << 32) + row.document.number)
                    drawn.add(row.slot)
            self._step(step, bank, book)
            if progress:
                progress(sum(row.stop - row.first for row in step.rows))
        return True

    def _bank_for(self, slots: int) -> AdapterBank:
        if self._bank.nobody < slots:
            self._bank = self._make_bank(slots=slots)
        return self._bank

    def _step(self, step: Step, bank: AdapterBank, book: Book) -> None:
        batch = self._batch(step, bank, book)
        context = row_context(batch.tokens, self._bos_id)
        going = [index for index, row in enumerate(step.rows) if row.goes_on]
        for repeat in range(self._gradient_steps):
            adapters = bank.rows.index_select(0, batch.slots).requires_grad_()
            with torch.enable_grad():
                losses = self._forward(batch.tokens, batch.targets, context, batch.where, adapters)
                if repeat == 0:
                    book.write(step.rows, batch.positions, losses)
                if not going:
                    return
                (gradient,) = torch.autograd.grad((losses * batch.weights).sum(), adapters)
            bank.update([step.rows[index].slot for index in going], [gradient[index] for index in going])

    def _batch(self, step: Step, bank: AdapterBank, book: Book) -> Batch:
        filler = (bank.nobody, 0, 0, 0, 0)
        width = step.width if self._is_compiled else max(row.stop - row.window for row in step.rows)
        facts = [
            (row.slot, row.window, row.stop - row.window, row.first, row.goes_on * (row.stop - row.first))
            for row in step.rows
        ]
        if self._is_compiled:
            facts += [filler] * (self.shapes.rows(width) - len(facts))
        device = self._world.device
        table = torch.tensor(facts, dtype=torch.int64)
        if device != "cpu":
            table = table.pin_memory().to(device, non_blocking=True)
        slots, window, used, first, learns = table.T.unsqueeze(-1)
        across, ahead = torch.arange(width, device=device), torch.arange(self.chunk, device=device)
        inside, real = across < used, first + ahead < window + used
        tokens = book.tokens[(window + across).clamp(max=book.targets)]
        positions = torch.where(real, first + ahead, book.targets)
        return Batch(
            slots=slots.squeeze(-1),
            tokens=torch.where(inside, tokens, 0 if self._bos_id else 1),
            where=(first - window + ahead).clamp(max=width - 1),
            targets=book.tokens[(positions + 1).clamp(max=book.targets)],
            positions=positions,
            weights=real * (learns > 0) / learns.clamp(min=1),
        )
