"""Measures a recipe on this machine: step, loader and scoring, beside the machine's own ceilings."""

import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from underpar.core.recipe import Resolved
from underpar.core.world import World
from underpar.data.loaders import StepLoader, synthetic_step
from underpar.data.shards import write_shard
from underpar.data.validation import ValStream
from underpar.evaluate.score import score
from underpar.evaluate.windows import Window
from underpar.kernels.attention import backend_for, forced
from underpar.lab.build import build_model
from underpar.lab.ceiling import copy_bytes_per_second, matmul_flops_per_second, median_seconds
from underpar.lab.environment import describe_environment
from underpar.lab.pipeline import say
from underpar.model.cost import model_cost
from underpar.optim.schedules import Progress
from underpar.recipes import Recipe

BOS_ID = 1


@dataclass(frozen=True)
class StepBench:
    """One training step: forward, backward, reduction and update."""

    step_ms: float
    step_ms_p10: float
    step_ms_p90: float
    optimiser_ms: float
    tokens_per_second: float
    model_flops_per_second: float
    matmul_share: float
    """Model FLOP/s over the measured rate of a large matrix product, all processes together."""
    peak_memory_bytes: int | None
    compile_seconds: float
    loss_nats: list[float]
    """Losses of the timed steps on fixed random tokens: two versions of the same mathematics agree here."""


def bench_recipe(resolved: Resolved[Recipe], world: World, *, steps: int, attention: str | None) -> dict[str, Any]:
    """Everything, as JSON data. Collective: call on every process."""
    config = resolved.config
    dtype = config.train.dtype(world)
    matmul = matmul_flops_per_second(world.device, dtype)
    copy = copy_bytes_per_second(world.device)
    with forced(attention):
        backend = backend_for(
            torch.device(world.device),
            dtype,
            packed=config.data.loader.is_packed,
            row_tokens=config.data.loader.seq_len,
        )
        step = bench_step(resolved, world, steps=steps, matmul=matmul)
        window = bench_scoring(config, config.evaluate.window, world)
    loader = bench_loader(config, world)
    return {
        "recipe": resolved.name,
        "fingerprint": resolved.fingerprint,
        "overrides": list(resolved.overrides),
        "batch_tokens": config.data.loader.batch_tokens,
        "seq_len": config.data.loader.seq_len,
        "micro_batch_tokens": config.train.micro_batch_tokens,
        "world_size": world.size,
        "attention_backend": backend,
        "ceilings": {"matmul_flops_per_second": matmul, "copy_bytes_per_second": copy},
        "step": asdict(step),
        "loader": {"tokens_per_second": loader, "times_training": loader / step.tokens_per_second},
        "scoring": {"window": str(config.evaluate.window), **window},
        "environment": describe_environment(backend),
    }


def bench_step(resolved: Resolved[Recipe], world: World, *, steps: int, matmul: float) -> StepBench:
    """Time `steps` whole steps on fixed random tokens after compilation and five warm steps."""
    config = resolved.config
    model = build_model(config, world)
    model.compute_dtype = config.train.dtype(world)
    optimisers = config.optim.build(model, world)
    on_cuda = world.device != "cpu"
    forward: Any = torch.compile(model, dynamic=False, fullgraph=True) if on_cuda and config.train.compile else model
    batches = synthetic_step(
        config.data.loader, config.model.vocab_size, BOS_ID, world, config.train.micro_batch_tokens
    )
    settings = config.schedule.at(Progress(0, 0, 0.0), config.budget)
    tokens = config.data.loader.batch_tokens
    losses: list[torch.Tensor] = []

    def one_step() -> None:
        total = torch.zeros((), device=world.device)
        for batch in batches:
            loss = forward(batch.inputs, batch.targets, batch.context).sum() / tokens
            loss.backward()
            total += loss.detach()
        optimisers.step(settings)
        model.zero_grad(set_to_none=True)
        losses.append(world.sum_(total))

    say("compiling and warming up")
    began = time.perf_counter()
    one_step()
    if on_cuda:
        torch.cuda.synchronize()
    compile_seconds = time.perf_counter() - began
    for _ in range(5 if on_cuda else 1):
        one_step()
    if on_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    world.barrier()
    times = []
    say(f"timing {steps} steps")
    for _ in range(steps):
        times.append(median_seconds(one_step, device=world.device, repeats=1, warmup=0) * 1e3)
    step_ms = statistics.median(times)
    speed = tokens / step_ms * 1e3
    flops = speed * model_cost(config.model, config.data.loader.seq_len).train_flops_per_token
    ordered = sorted(times)
    return StepBench(
        step_ms=step_ms,
        step_ms_p10=ordered[len(ordered) // 10],
        step_ms_p90=ordered[-1 - len(ordered) // 10],
        optimiser_ms=_optimiser_ms(model, optimisers, settings, world),
        tokens_per_second=speed,
        model_flops_per_second=flops,
        matmul_share=flops / (matmul * world.size),
        peak_memory_bytes=torch.cuda.max_memory_allocated() if on_cuda else None,
        compile_seconds=compile_seconds,
        loss_nats=[round(float(v), 5) for v in losses[-steps:]],
    )


def _optimiser_ms(model: torch.nn.Module, optimisers: Any, settings: Any, world: World) -> float:
    for param in model.parameters():
        param.grad = torch.full_like(param, 1e-3)
    seconds = median_seconds(lambda: optimisers.step(settings), device=world.device, repeats=5, warmup=1)
    model.zero_grad(set_to_none=True)
    return seconds * 1e3


def bench_loader(config: Recipe, world: World, seconds: float = 2.0) -> float:
    """Training tokens per second of the loader alone, all processes together, from shards on disk."""
    loader = config.data.loader
    with tempfile.TemporaryDirectory() as folder:
        need = loader.spans * (loader.span_tokens + 1) * 4
        tokens = np.random.default_rng(world.rank).integers(2, config.model.vocab_size, need, dtype=np.uint16)
        tokens[::600] = BOS_ID
        write_shard(Path(folder) / "fineweb_train_000000.bin", tokens)
        reader = StepLoader(Path(folder), loader, BOS_ID, world, micro_batch_tokens=config.train.micro_batch_tokens)
        batches = iter(reader)
        next(batches)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            next(batches)
            count += 1
        speed = count * loader.batch_tokens / (time.perf_counter() - began)
        batches.close()  # type: ignore[attr-defined]
    return speed


def bench_scoring(config: Recipe, window: Window, world: World) -> dict[str, float]:
    """Scored tokens per second of the recipe's window on random tokens, warm, compiled on CUDA."""
    model: Any = build_model(config, world)
    model.compute_dtype = config.train.dtype(world)
    if world.device != "cpu":
        model = torch.compile(model, dynamic=False, fullgraph=True)
    rows = max(1, config.evaluate.batch_tokens // window.context)
    passes = sum(1 for _ in window.spans(100 * window.context)) / 100
    count = max(2, round((4 if world.device == "cpu" else 40) * rows / passes)) * window.context * world.size
    tokens = np.random.default_rng(0).integers(2, config.model.vocab_size, count + 1, dtype=np.uint16)
    tokens[0] = BOS_ID
    sizes = np.ones(count + 1, dtype=np.int32)
    sizes[0] = 0
    stream = ValStream(tokens=tokens, byte_counts=sizes, document_starts=np.zeros(1, dtype=np.int64))
    small = ValStream(
        tokens=tokens[: window.context * 2],
        byte_counts=sizes[: window.context * 2],
        document_starts=stream.document_starts,
    )
    run = lambda data: score(model, data, window, bos_id=BOS_ID, world=world, batch_tokens=config.evaluate.batch_tokens)  # noqa: E731
    run(small)
    result = run(stream)
    return {
        "tokens_per_second": result.tokens / result.eval_seconds,
        "forward_passes_per_token": passes,
        "seconds_for_62_million_tokens": 62_021_632 * result.eval_seconds / result.tokens,
    }
