"""Small training runs, callable in this process and in others. What runs elsewhere is named by strings and numbers alone."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from support import BOS, seeded, tiny_config
from underpar.core.budget import Budget
from underpar.core.errors import TrainError
from underpar.core.world import World
from underpar.data.loaders import DocumentPacking, Loader, SequentialRows, StepLoader
from underpar.model.gpt import GPTConfig
from underpar.model.plan import Recurrence, Straight, UNet
from underpar.nn.embeddings import SplitHead
from underpar.nn.fake_quantise import FakeIntPerRow, FakeQuantiser
from underpar.nn.lookback import BigramTable, SparseBigramTable
from underpar.nn.residual import InjectedMix
from underpar.optim.adam import Adam
from underpar.optim.averaging import EMA, SWA, Averaging
from underpar.optim.clip import GlobalClip
from underpar.optim.decay import CautiousDecay
from underpar.optim.mantissa import Mantissa
from underpar.optim.muon import Muon
from underpar.optim.normuon import NorMuon
from underpar.optim.orthogonalise import PolarExpress
from underpar.optim.partition import Labelled, Optim
from underpar.optim.schedules import (
    BelowRate,
    DecayFollowsRate,
    DecayTaper,
    FromFraction,
    MomentumWarmup,
    Schedule,
    WarmdownSteps,
)
from underpar.optim.sharded_adam import ShardedAdam
from underpar.optim.sided_normuon import SidedNorMuon
from underpar.optim.stages import Stage, StageTable
from underpar.train.events import JsonLines, Sink, Sinks
from underpar.train.loop import Trainer
from underpar.train.training import Training

ROWS = SequentialRows(batch_tokens=192, seq_len=16, spans=1)
"""12 rows a step: divisible among 1, 2, 3 and 5 processes, evenly or not."""
PACKED = DocumentPacking(batch_tokens=192, seq_len=16, spans=6)
AVERAGES: dict[str, Averaging] = {"ema": EMA(decay=0.9), "swa": SWA(start_below=0.8, every=3)}
LOADERS: dict[str, Loader] = {"rows": ROWS, "packed": PACKED}


@dataclass
class Parts:
    """What a tiny run is made of."""

    model: GPTConfig
    optim: Optim
    schedule: Schedule
    average: Averaging | None = None
    fake_quantise: FakeQuantiser | None = None


def plain() -> Parts:
    optim = Optim(matrix=Muon(lr=0.02), embedding=Adam(lr=0.02), gain=Adam(lr=0.02))
    schedule = Schedule(learning_rate=WarmdownSteps(steps=20), momentum=MomentumWarmup(steps=10))
    return Parts(tiny_config(), optim, schedule)


def late() -> Parts:
    """Everything that changes while a run lasts: recurrence and fake quantisation switch on, weight decay tapers, gradients
    are clipped, weights averaged.
    """
    parts = plain()
    parts.model.num_layers, parts.model.topology = 3, UNet(recurrence=Recurrence(first=1, last=1, passes=2))
    parts.optim.matrix, parts.optim.clip = NorMuon(lr=0.02, weight_decay=0.1), GlobalClip(norm=0.3)
    parts.schedule.recurrence, parts.schedule.fake_quantise = FromFraction(fraction=0.35), BelowRate(lr_scale=0.5)
    parts.schedule.weight_decay = DecayTaper(start=0.5)
    parts.fake_quantise, parts.average = FakeIntPerRow(bits=6), EMA(decay=0.9)
    return parts


def recurrent() -> Parts:
    """Two phases, and nothing else that is not plain."""
    parts = plain()
    parts.model.topology = UNet(recurrence=Recurrence(first=1, last=1, passes=2))
    parts.schedule.recurrence = FromFraction(fraction=0.35)
    return parts


def speedrun() -> Parts:
    """What the second game adds: two tables that are one until a stage ends, several targets, Adam on every second step."""
    parts = plain()
    parts.model.head = SplitHead()
    slow = {name: ShardedAdam(lr=0.02, weight_decay=0.01, every=2) for name in ("embedding", "head", "gain")}
    matrix = SidedNorMuon(lr=0.02, weight_decay=0.02, decay=CautiousDecay(), orthogonalise=PolarExpress())
    parts.optim = Optim(matrix=matrix, **slow)
    shape = {"batch_tokens": 192, "seq_len": 16, "short_window": 1, "long_window": 1}
    first = Stage(share=0.5, tied=True, targets=(1.0, 0.5), targets_end=(1.0, 0.0), **shape)
    parts.schedule.stages = StageTable(stages=(first, Stage(share=0.5, lr_scale=1.5, **shape)), window_block=1)
    parts.schedule.weight_decay = DecayFollowsRate()
    return parts


def halves() -> Parts:
    """The same on weights that are kept in two halves."""
    parts = speedrun()
    parts.model.storage, parts.model.embedding.param_dtype = "bfloat16", "bfloat16"
    assert isinstance(parts.optim.matrix, SidedNorMuon)
    parts.optim.matrix.master = Mantissa()
    return parts


def dense() -> Parts:
    """A table of bigrams with gradients as large as itself."""
    parts = speedrun()
    parts.model.num_layers, parts.model.topology = 1, Straight()
    parts.model.bigram, parts.model.residual = BigramTable(buckets=301), InjectedMix()
    adam = ShardedAdam(lr=0.02, weight_decay=0.01, every=2)
    parts.optim.by_label = (Labelled(label="bigram_embedding", optimiser=adam),)
    return parts


def sparse() -> Parts:
    """The same table with gradients by rows, shared among processes that its rows do not divide among."""
    parts = dense()
    parts.model.bigram = SparseBigramTable(buckets=301)
    return parts


STACKS: dict[str, Callable[[], Parts]] = {
    "plain": plain,
    "late": late,
    "recurrent": recurrent,
    "speedrun": speedrun,
    "halves": halves,
    "dense": dense,
    "sparse": sparse,
}


class Memory:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def log(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass

    def losses(self) -> list[float]:
        return [e["loss_nats"] for e in self.events if e["event"] == "step"]


def make_trainer(
    folder: Path,
    data: Path,
    *,
    world: World | None = None,
    budget: Budget | None = None,
    loader: StepLoader | None = None,
    kind: str = "rows",
    micro_batch_tokens: int = 64,
    fingerprint: str = "f" * 16,
    sinks: Sinks | None = None,
    validate: Callable[[Any], tuple[float, float]] | None = None,
    average: str | None = None,
    stack: str = "plain",
    **training: Any,
) -> Trainer:
    world, parts = world or World(), STACKS[stack]()
    model = seeded(parts.model, seed=4).to(world.device)
    model.fake_quantiser = parts.fake_quantise
    averaging = AVERAGES[average] if average else parts.average
    settings = {"warmup_steps": 0, "log_every_steps": 1, "checkpoint_every_seconds": 1e6} | training
    return Trainer(
        model=model,
        optimisers=parts.optim.build(model, world),
        schedule=parts.schedule,
        budget=budget or Budget(train_steps=12),
        loader=loader or StepLoader(data, LOADERS[kind], BOS, world, micro_batch_tokens=micro_batch_tokens),
        training=Training(micro_batch_tokens=micro_batch_tokens, **settings),
        world=world,
        folder=folder / "checkpoints",
        fingerprint=fingerprint,
        sinks=sinks or Sinks(),
        validate=validate,
        average=averaging.build(dict(model.named_parameters())) if averaging else None,
    )


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def run_to_end(trainer: Trainer) -> tuple[dict[str, Tensor], Memory]:
    """Run a trainer with its events kept; the last weights."""
    memory = Memory()
    trainer.sinks = Sinks(required=[memory])
    trainer.run()
    return weights(trainer), memory


# ------------------------------------------------------------------------------------------------- in other processes


class InterruptAt:
    """Sends this process SIGINT after a step, as Ctrl-C would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def log(self, event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == self.step:
            os.kill(os.getpid(), signal.SIGINT)

    def close(self) -> None:
        pass


def job(folder: str, data: str, steps: int, options: dict[str, Any], interrupt_at: int = 0) -> None:
    """Take up what `folder` holds, train to `steps`, log to train.jsonl. For a process of its own."""
    torch.set_num_threads(1)
    world = World.join("cpu")
    trainer = make_trainer(Path(folder), Path(data), world=world, budget=Budget(train_steps=steps), **options)
    resumed = trainer.resume()
    sinks: list[Sink] = []
    if world.is_main:
        sinks.append(JsonLines(Path(folder) / "train.jsonl", trainer.step if resumed else 0))
        sinks.append(InterruptAt(interrupt_at))
    trainer.sinks = Sinks(required=sinks)
    trainer.run()
    trainer.sinks.close()
    if world.is_main and trainer.step == steps:
        (Path(folder) / "done").touch()
    world.leave()


def job_killed_at(folder: str, data: str, steps: int, options: dict[str, Any], count: int) -> None:
    """`job`, killed without warning before the count-th change that a checkpoint makes to the disk."""
    left = [count]

    def lethal(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    os.fsync = lethal(os.fsync)
    os.unlink = lethal(os.unlink)
    Path.rename = lethal(Path.rename)  # type: ignore[method-assign]
    Path.replace = lethal(Path.replace)  # type: ignore[method-assign]
    Path.mkdir = lethal(Path.mkdir)  # type: ignore[method-assign]
    Path.write_text = lethal(Path.write_text)  # type: ignore[method-assign]
    shutil.rmtree = lethal(shutil.rmtree)  # type: ignore[assignment]
    job(folder, data, steps, options)


def bad_job(folder: str, data: str, bad_rank: int) -> None:
    """A run in which one rank's first batch has a target that makes its loss NaN. Writes what each rank was told."""
    torch.set_num_threads(1)
    world = World.join("cpu")
    trainer = make_trainer(Path(folder), Path(data), world=world)
    if world.rank == bad_rank:
        forward = trainer.forward
        trainer.forward = lambda *args: forward(*args) * float("nan")
    try:
        trainer.run()
    except TrainError as problem:
        (Path(folder) / f"told-{world.rank}").write_text(str(problem))
    world.leave()


def agree_job(folder: str) -> None:
    """Every rank brings other numbers; writes what each came away with."""
    world = World.join("cpu")
    found = world.agree(100.0 + world.rank, float(world.rank == 1), 1e-17 * (world.rank + 1))
    gathered = world.all_gather(torch.full((2, 3), float(world.rank)))
    scattered = world.reduce_scatter(torch.arange(2.0 * world.size).repeat(3, 1).T.contiguous())
    total = world.sum_(torch.tensor([1.0, float(world.rank)]))
    (Path(folder) / f"agreed-{world.rank}").write_text(
        repr((found, gathered[:, 0].tolist(), scattered[:, 0].tolist(), total.tolist(), list(world.share(10))))
    )
    world.leave()
