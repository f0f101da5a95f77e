"""Measures a recipe on this machine: steps of every phase, loader and scoring, beside the machine's own ceilings."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import torch

from underpar.core.errors import ConfigError, UnderparError
from underpar.core.recipe import Resolved
from underpar.core.world import World
from underpar.data.aligned import AlignedDocuments
from underpar.data.context import Batch
from underpar.data.loaders import StepLoader
from underpar.data.shards import shard_name, write_shard
from underpar.evaluate.score import score
from underpar.kernels.attention import backend_for, forced
from underpar.lab.build import build_model, scorer
from underpar.lab.ceiling import copy_bytes_per_second, matmul_flops_per_second, median_seconds
from underpar.lab.environment import describe_environment
from underpar.lab.profile import OPTIMISER_REGION, profile_steps
from underpar.lab.say import say
from underpar.lab.share import Share
from underpar.lab.synthetic import LENGTHS, document_starts, random_stream, random_tokens
from underpar.model.compiled import graphs_compiled
from underpar.model.cost import model_cost
from underpar.optim.schedules import Settings
from underpar.recipes import Recipe
from underpar.train.events import Sinks
from underpar.train.loop import Trainer
from underpar.train.preparation import warm_up
from underpar.train.process import unburdened_collector

BOS_ID = 1
STEPS_OF_TEXT = 4
"""Different steps that are timed in turn: packed rows differ in their number of documents."""


@dataclass(frozen=True)
class StepBench:
    """One training step: forward, backward, reduction, update and averaging. Medians over the timed steps."""

    phase: dict[str, Any]
    batch_tokens: int
    seq_len: int
    step_ms: float
    step_ms_p10: float
    step_ms_p90: float
    optimiser_ms: float
    tokens_per_second: float
    model_flops_per_second: float
    matmul_share: float
    """Model FLOP/s over the measured rate of a large matrix product, all processes together."""
    peak_memory_bytes: int | None
    recompilations: int
    loss_nats: list[float]
    """Losses of the timed steps on fixed random tokens: two versions of the same mathematics agree here."""


def bench_recipe(
    resolved: Resolved[Recipe], world: World, *, steps: int, attention: str | None, profiled: bool = False
) -> dict[str, Any]:
    """Everything, as JSON data; the last phase of the run is "step". Collective: call on every process.

    With a `Share` as world, tokens, speeds and costs are those of the one process.

    Raises ConfigError when a profile is asked for without a CUDA device.
    """
    config = resolved.config
    if profiled and world.device == "cpu":
        raise ConfigError("--profile needs a CUDA device; on a CPU, use torch.profiler on a small recipe")
    dtype = config.train.dtype(world)
    matmul = matmul_flops_per_second(world.device, dtype)
    copy = copy_bytes_per_second(world.device)
    backend = _attention_backend(config, world, attention)
    with tempfile.TemporaryDirectory() as folder, forced(attention):
        trainer = _trainer(resolved, world, Path(folder))
        _say(world, "compiling and warming up")
        warm_up(trainer)
        phases, profiles = [], []
        with unburdened_collector():
            for kind in trainer.kinds:
                phases.append(_phase(trainer, config, kind, steps, matmul))
                if profiled:
                    profiles.append(_profile(trainer, kind))
        loader = _loader_speed(trainer)
        del trainer
        window = _scoring(config, World(device=world.device) if isinstance(world, Share) else world)
    step = phases[-1]
    return {
        "recipe": resolved.name,
        "fingerprint": resolved.fingerprint,
        "overrides": list(resolved.overrides),
        "batch_tokens": step.batch_tokens,
        "seq_len": step.seq_len,
        "micro_batch_tokens": config.train.micro_batch_tokens,
        "documents": LENGTHS.to_json(),
        "world_size": _present(world),
        "share_of": world.size if isinstance(world, Share) else None,
        "attention_backend": backend,
        "ceilings": {"matmul_flops_per_second": matmul, "copy_bytes_per_second": copy},
        "step": asdict(step),
        "phases": [asdict(phase) for phase in phases],
        **({"profiles": profiles} if profiled else {}),
        "loader": {"tokens_per_second": loader, "times_training": loader / step.tokens_per_second},
        "scoring": {"window": str(config.evaluate.window), **window},
        "environment": describe_environment(backend),
    }


def _say(world: World, text: str) -> None:
    if world.is_main:
        say(text)


def _present(world: World) -> int:
    """Processes that run here."""
    return 1 if isinstance(world, Share) else world.size


def _attention_backend(config: Recipe, world: World, attention: str | None) -> str:
    loader = config.data.loader
    with forced(attention):
        dtype = config.train.dtype(world)
        return backend_for(torch.device(world.device), dtype, packed=loader.is_packed, row_tokens=loader.seq_len)


def _trainer(resolved: Resolved[Recipe], world: World, folder: Path) -> Trainer:
    """A trainer of the recipe on random documents."""
    config = resolved.config
    loader, model = config.data.loader, build_model(config, world)
    shapes = [loader.shaped(kind.shape) for kind in config.schedule.kinds(config.budget)]
    count = (max(shape.batch_tokens for shape in shapes) + loader.spans) * STEPS_OF_TEXT
    if isinstance(loader, AlignedDocuments):  # which passes over what documents have beyond seq_len
        count *= 4 + 2 * LENGTHS.mean_tokens // min(shape.seq_len for shape in shapes)
    write_shard(folder / shard_name("train", 0), random_tokens(count, config.model.vocab_size, BOS_ID))
    return Trainer(
        model=model,
        optimisers=config.optim.build(model, world),
        schedule=config.schedule,
        budget=config.budget,
        loader=StepLoader(folder, loader, BOS_ID, world, micro_batch_tokens=config.train.micro_batch_tokens),
        training=config.train,
        world=world,
        folder=folder / "checkpoints",
        fingerprint=resolved.fingerprint,
        sinks=Sinks(),
        average=None if config.averaging is None else config.averaging.build(dict(model.named_parameters())),
    )


# ------------------------------------------------------------------------------------------------- steps


def _text(trainer: Trainer, kind: Settings) -> list[list[Batch]]:
    """Steps of random documents in the shape of that kind."""
    trainer.loader.position = 0
    text = [trainer.loader.fetch(kind.shape) for _ in range(STEPS_OF_TEXT)]
    trainer.loader.close()
    return text


def _phase(trainer: Trainer, config: Recipe, kind: Settings, steps: int, matmul: float) -> StepBench:
    """Time `steps` whole steps of one kind, launched one after another as in training."""
    world, on_cuda, phase, text = trainer.world, trainer.on_cuda, kind.phase, _text(trainer, kind)
    turns = cycle(text)
    losses: list[torch.Tensor] = []

    def one_step() -> None:
        settings = replace(kind, step=len(losses))  # some optimisers update on every second step
        losses.append(trainer.update(next(turns), settings, 1)[0])

    for _ in range(len(text) if on_cuda else 1):
        one_step()
    if on_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    world.barrier()
    shown = {name: getattr(phase, name) for name in trainer.obeyed}
    loader = trainer.loader.shaped(kind.shape)
    said = ", ".join(f"{name} {value}" for name, value in shown.items())
    tokens = loader.batch_tokens * _present(world) // world.size
    _say(world, f"timing {steps} steps of {tokens:,} tokens" + (f" with {said}" if said else ""))
    before = graphs_compiled()
    times = sorted(_step_milliseconds(one_step, steps, on_cuda=on_cuda))
    step_ms = statistics.median(times)
    speed = tokens / step_ms * 1e3
    attended = statistics.fmean(_attended_tokens(batch) for batches in text for batch in batches)
    cost = model_cost(config.model, round(2 * attended - 1), looped=phase.looped, windows=phase.windows)
    flops = speed * cost.train_flops_per_token
    return StepBench(
        phase={name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()},
        batch_tokens=tokens,
        seq_len=loader.seq_len,
        step_ms=step_ms,
        step_ms_p10=times[len(times) // 10],
        step_ms_p90=times[-1 - len(times) // 10],
        optimiser_ms=_optimiser_ms(trainer, replace(kind, step=trainer.optimisers.period - 1)),
        tokens_per_second=speed,
        model_flops_per_second=flops,
        matmul_share=flops / (matmul * _present(world)),
        peak_memory_bytes=torch.cuda.max_memory_allocated() if on_cuda else None,
        recompilations=graphs_compiled() - before,
        loss_nats=[round(float(v), 5) for v in losses[-steps:]],
    )


def _step_milliseconds(one_step: Any, steps: int, *, on_cuda: bool) -> list[float]:
    """Time of each step: between events on the device, so that the host may run ahead; by the host's clock elsewhere."""
    if not on_cuda:
        return [median_seconds(one_step, device="cpu", repeats=1, warmup=0) * 1e3 for _ in range(steps)]
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    marks[0].record()
    for mark in marks[1:]:
        one_step()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in pairwise(marks)]


def _attended_tokens(batch: Batch) -> float:
    """Positions that a token attends to, on average over the batch: itself and what precedes it in its segment."""
    offsets = batch.context.cu_seqlens
    if offsets is None:
        return (batch.inputs.shape[1] + 1) / 2
    lengths = offsets.diff().double()
    return float((lengths * (lengths + 1) / 2).sum() / lengths.sum())


def _optimiser_ms(trainer: Trainer, settings: Any) -> float:
    for param in trainer.model.parameters():
        param.grad = torch.full_like(param, 1e-3)
    device = trainer.world.device
    seconds = median_seconds(lambda: trainer.optimisers.step(settings), device=device, repeats=5, warmup=1)
    trainer.model.zero_grad(set_to_none=True)
    return seconds * 1e3


def _profile(trainer: Trainer, kind: Settings) -> dict[str, Any]:
    """Where the device time of a step of that kind goes, everything updated. The profiler slows the host: gaps are at most
    what it says, and what the device is busy for is not touched by that.
    """
    settings = replace(kind, step=trainer.optimisers.period - 1)
    turns, step = cycle(_text(trainer, kind)), trainer.optimisers.step

    def marked(*args: Any) -> dict[str, float]:
        with torch.profiler.record_function(OPTIMISER_REGION):
            return step(*args)

    trainer.optimisers.step = marked  # type: ignore[method-assign, assignment]
    try:
        _say(trainer.world, "profiling")
        return profile_steps(lambda: trainer.update(next(turns), settings, 1))
    finally:
        trainer.optimisers.step = step  # type: ignore[method-assign]


# ------------------------------------------------------------------------------------------------- loader and scoring


def _loader_speed(trainer: Trainer, seconds: float = 2.0) -> float:
    """Training tokens per second of the loader alone, all processes that run here together, from shards on disk."""
    world = trainer.world
    loader, shape = trainer.loader, trainer.kinds[-1].shape
    loader.position = 0
    loader.fetch(shape)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        if count % STEPS_OF_TEXT == STEPS_OF_TEXT - 1:
            loader.position = 0  # the text is as long as the steps that are timed
        loader.fetch(shape)
        count += 1
    speed = count * loader.batch_tokens(shape) / (time.perf_counter() - began)
    loader.close()
    return speed * _present(world) / world.size


def _scoring(config: Recipe, world: World) -> dict[str, float]:
    """Scored tokens per second of the recipe's window on random documents, warm, compiled on CUDA."""
    model = build_model(config, world)
    model.compute_dtype = config.train.dtype(world)
    forward, window = scorer(model, world), config.evaluate.window
    rows = max(1, config.evaluate.batch_tokens // window.context)
    sample = 100 * window.context
    passes = sum(s.stop - s.start for s in window.spans(sample, document_starts(sample + 1))) / sample
    count = max(2, round((4 if world.device == "cpu" else 40) * rows / passes)) * window.context * world.size

    def run(tokens: int) -> Any:
        stream = random_stream(tokens + 1, config.model.vocab_size, BOS_ID)
        size = config.evaluate.batch_tokens
        return score(forward, stream, window, bos_id=BOS_ID, world=world, batch_tokens=size)

    run(window.context * 2)
    result = run(count)
    return {
        "tokens_per_second": result.tokens / result.eval_seconds,
        "forward_passes_per_token": passes,
        "seconds_for_62_million_tokens": 62_021_632 * result.eval_seconds / result.tokens,
    }


# ------------------------------------------------------------------------------------------------- compilation


def warm_up_seconds(resolved: Resolved[Recipe], world: World, attention: str | None) -> dict[str, float]:
    """Seconds of compilation and of the rest of the warm-up, before the first step of a run."""
    with tempfile.TemporaryDirectory() as folder, forced(attention):
        trainer = _trainer(resolved, world, Path(folder))
        warm_up(trainer)
        return {name: trainer.clock.paused_seconds.get(name, 0.0) for name in ("compile", "warm-up")}


def cold_and_warm(arguments: list[str]) -> dict[str, dict[str, float]]:
    """`warm_up_seconds` in two fresh processes: the first finds torch's and Triton's caches empty, the second what it left.

    arguments: of `underpar bench`, recipe first. One process each, whatever this one belongs to. Raises UnderparError when
    one fails.
    """
    found = {}
    with tempfile.TemporaryDirectory() as caches:
        folders = {"TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor", "TRITON_CACHE_DIR": f"{caches}/triton"}
        alone = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        for name in ("cold", "warm"):
            say(f"compiling in a fresh process, caches {'empty' if name == 'cold' else 'filled'}")
            command = [sys.executable, "-m", "underpar", "bench", *arguments, "--compile-only", "--json"]
            done = subprocess.run(command, env=alone | folders, capture_output=True, text=True, check=False)
            if done.returncode:
                raise UnderparError(f"'{' '.join(command[2:])}' failed: {done.stderr.strip().splitlines()[-1:]}")
            found[name] = json.loads(done.stdout)
    return found
