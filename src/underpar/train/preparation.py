"""What happens before the clock starts: every graph is compiled, everything settles, and nothing of it remains."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from underpar.core.budget import Budget
from underpar.data.context import Batch, packed_context
from underpar.data.loaders import Loader, synthetic_step
from underpar.optim.averaging import WeightAverage
from underpar.optim.partition import Optimisers
from underpar.optim.schedules import Progress, Settings
from underpar.train.weights import set_weights

if TYPE_CHECKING:
    from underpar.train.loop import Trainer

_NO_TOKEN = -1


def warm_up(trainer: "Trainer") -> None:
    """Compile and settle every phase on random tokens, then put everything back. Books its seconds on the trainer's clock."""
    if not trainer.warmup_steps:
        return
    kinds, rounds = trainer.kinds, max(len(trainer.kinds), trainer.optimisers.period)
    compiles = trainer.forward is not trainer.model
    with restored(trainer.model, trainer.optimisers, trainer.average):
        with trainer.clock.pause("compile" if compiles else "warm-up"):
            for number in range(rounds):
                settings = replace(kinds[number % len(kinds)], step=number)
                batches = _synthetic(trainer, settings)
                trainer.update(batches, settings, 1)
                trainer.accumulate(ragged_variants(batches), settings)
                trainer.model.zero_grad(set_to_none=True)
            _wait(trainer)
        with trainer.clock.pause("warm-up"):
            for number in range(rounds, trainer.warmup_steps):
                settings = replace(kinds[number % len(kinds)], step=number)
                trainer.update(_synthetic(trainer, settings), settings, 1)
            _wait(trainer)
    if trainer.on_cuda:
        torch.cuda.reset_peak_memory_stats()


def rehearse(trainer: "Trainer") -> None:
    """A few steps on one row of random tokens, spread over the whole budget, without a compiler; then put everything back.

    Whoever records which settings are read has then seen what training reads. A step of text is cut, and not trained on.
    """
    loader, kinds = trainer.loader, trainer.kinds
    loader.step_at(loader.position, kinds[0].shape)
    compiles = trainer.forward is not trainer.model
    with restored(trainer.model, trainer.optimisers, trainer.average), without_compiler(compiles):
        for number, progress in enumerate(stations(trainer.budget)):
            now, kind = trainer.schedule.at(progress, trainer.budget), kinds[number % len(kinds)]
            weights = kind.target_weights
            settings = replace(now, phase=kind.phase, shape=kind.shape, target_weights=weights, step=number)
            row = one_row(
                loader.shaped(kind.shape), trainer.model.config.vocab_size, loader.bos_id, trainer.world.device
            )
            trainer.update(row, settings, progress.step + 1)


def _synthetic(trainer: "Trainer", settings: Settings) -> list[Batch]:
    loader, size = trainer.loader, trainer.model.config.vocab_size
    return synthetic_step(loader.shaped(settings.shape), size, loader.bos_id, trainer.world, loader.micro_batch_tokens)


def _wait(trainer: "Trainer") -> None:
    if trainer.on_cuda:
        torch.cuda.synchronize()


@contextmanager
def restored(model: nn.Module, optimisers: Optimisers, average: WeightAverage | None) -> Iterator[None]:
    """Steps inside the block leave weights, optimiser, average and random numbers as they were. Collective."""
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = {name: t.clone() for name, t in optimisers.state_tensors().items()}
    averaged = {name: t.clone() for name, t in average.state_tensors().items()} if average else {}
    on_cuda = any(p.is_cuda for p in weights.values())
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_cuda else []):
        yield
    model.zero_grad(set_to_none=True)
    set_weights(model, weights)
    optimisers.reset()
    optimisers.load_state_tensors(state)
    if average:
        average.reset()
        average.load_state_tensors(averaged)


def ragged_variants(batches: list[Batch], lengths: int = 4, pad_to: int = 64) -> list[Batch]:
    """The first packed row with other numbers of segments: the `lengths` shortest offsets that a loader can make of it.

    Segments lie as long as they may; the rest is padding, as in the loader. Empty for dense rows. Source: golf PR #1530.
    """
    if not batches or batches[0].context.cu_seqlens is None:
        return []
    inputs, longest = batches[0].inputs, batches[0].context.max_seqlen
    least = -(-(-(-inputs.shape[1] // longest) + 1) // pad_to)
    sizes = [(least + extra) * pad_to for extra in range(lengths)]
    contexts = [packed_context(inputs.cpu(), _NO_TOKEN, longest, pad_to=size) for size in sizes]
    return [batches[0]._replace(context=context.to(str(inputs.device))) for context in contexts]


def one_row(loader: Loader, vocab_size: int, bos_id: int, device: str) -> list[Batch]:
    """One row of random tokens, `seq_len` long and cut as the loader cuts."""
    tokens = np.random.default_rng(0).integers(0, vocab_size, (1, loader.seq_len + 1), dtype=np.uint16)
    tokens[0, 0] = bos_id
    cut = loader.cut(tokens, range(1), bos_id, loader.seq_len)
    return [Batch(b.inputs.to(device), b.targets.to(device), b.context.to(device)) for b in cut]


@contextmanager
def without_compiler(applies: bool) -> Iterator[None]:
    """Inside the block whatever torch.compile made runs as plain Python, if the block asks for it."""
    if not applies:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def stations(budget: Budget) -> list[Progress]:
    """Five points of a run, from its first step to almost its end."""
    steps = budget.train_steps or 1_000
    return [
        Progress(int(share * steps), int(share * (budget.train_tokens or 0)), share * (budget.train_seconds or 0.0))
        for share in (0.0, 0.25, 0.5, 0.75, 0.99)
    ]
