"""What a recipe will cost, before anything is trained."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from underpar.compress.budget import estimate_coded_bytes
from underpar.compress.source import pack_source, source_closure
from underpar.core.budget import Budget
from underpar.core.units import format_bytes, format_count, format_seconds, format_size
from underpar.core.world import World
from underpar.lab.ceiling import matmul_flops_per_second
from underpar.model.cost import model_cost, on_meta
from underpar.model.plan import executions
from underpar.nn.module import parameter_roles
from underpar.optim.schedules import Progress, Settings
from underpar.recipes import Recipe
from underpar.referee.counted_code import ENTRIES

TRAIN_UTILISATION = {"cuda": 0.40, "cpu": 0.30}
"""Model FLOP/s over the rate of a large matrix product, as `underpar bench` measured it; the source of predicted times."""


@dataclass(frozen=True)
class Plan:
    """Predictions. Parameters and FLOPs are exact, bytes within a few per cent (without a byte budget 16 bits a weight), memory
    and time rough.
    """

    params: int
    params_by_role: dict[str, int]
    train_flops_per_token: float
    artifact_bytes: int
    container_bytes: int
    code_bytes: int
    train_memory_bytes: int
    train_steps: int
    train_tokens: int
    train_seconds: float
    train_flops: float
    device: str
    exceeded: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """What `underpar plan` prints."""
        roles = ", ".join(f"{role} {format_count(count)}" for role, count in self.params_by_role.items())
        steps = "step" if self.train_steps == 1 else "steps"
        lines = [
            f"parameters   {self.params:,} ({roles})",
            f"FLOPs/token  {self.train_flops_per_token / 1e6:,.1f} M in training",
            f"artifact     about {format_bytes(self.artifact_bytes)}: "
            f"container {self.container_bytes:,} + code {self.code_bytes:,}",
            f"memory       about {format_size(self.train_memory_bytes)} on each device in training",
            f"training     about {self.train_steps:,} {steps}, {format_count(self.train_tokens)} tokens, "
            f"{format_seconds(self.train_seconds)}, {self.train_flops:.3g} FLOPs on this {self.device}",
        ]
        return lines + [f"over budget  {text}" for text in self.exceeded]


class Duration(NamedTuple):
    """How long training lasts: optimiser steps, tokens, seconds, model FLOPs."""

    steps: int
    tokens: int
    seconds: float
    flops: float


def make_plan(config: Recipe, world: World) -> Plan:
    """Predict a recipe on this machine. Cost: under a second, mostly one measured matrix product."""
    loader = config.data.loader
    cost = model_cost(config.model, loader.seq_len)
    model = on_meta(config.model)
    roles = parameter_roles(model)
    shapes = {name: (tuple(p.shape), roles[name]) for name, p in model.named_parameters()}
    container = 2 * cost.params  # where nothing limits it: not worth drawing tables of hundreds of millions of weights
    if config.budget.artifact_bytes is not None:
        container = estimate_coded_bytes(shapes, config.pack.quantiser, config.pack.codec).container_bytes
    code = len(pack_source(source_closure(ENTRIES)))
    kind = "cpu" if world.device == "cpu" else "cuda"
    rate = matmul_flops_per_second(world.device, config.train.dtype(world)) * TRAIN_UTILISATION[kind] * world.size
    duration = _duration(config, rate)
    budget = config.budget
    exceeded = []
    if budget.artifact_bytes is not None and container + code > budget.artifact_bytes:
        over = container + code - budget.artifact_bytes
        exceeded.append(
            f"artifact_bytes: {container + code:,} predicted, limit {budget.artifact_bytes:,} ({over:,} over)"
        )
    seconds = budget.for_steps().train_seconds
    if seconds is not None and duration.seconds > seconds:
        exceeded.append(
            f"train_seconds: one step alone takes {format_seconds(duration.seconds)} here, limit {format_seconds(seconds)}; "
            "take another machine or a smaller batch"
        )
    memory = _memory(config, cost.params, world)
    available = _device_memory(world)
    if memory > available:
        exceeded.append(
            f"memory: {format_size(memory)} predicted, the device has {format_size(available)}; "
            "lower train.micro_batch_tokens"
        )
    return Plan(
        params=cost.params,
        params_by_role=cost.params_by_role,
        train_flops_per_token=cost.train_flops_per_token,
        artifact_bytes=container + code,
        container_bytes=container,
        code_bytes=code,
        train_memory_bytes=memory,
        train_steps=duration.steps,
        train_tokens=duration.tokens,
        train_seconds=duration.seconds,
        train_flops=duration.flops,
        device="CPU" if kind == "cpu" else torch.cuda.get_device_name(),
        exceeded=tuple(exceeded),
    )


class _StepCost(NamedTuple):
    tokens: int
    flops: float


def _duration(config: Recipe, flops_per_second: float) -> Duration:
    """Run the schedule through in two hundred strides, each at the speed of its phase, to the first training limit."""
    budget, costs = config.budget.for_steps(), _StepCosts(config)
    fastest = min(costs.of(settings).flops for settings in config.schedule.kinds(budget)) / flops_per_second
    smallest = min(costs.of(settings).tokens for settings in config.schedule.kinds(budget))
    stride = max(1, _steps_within(budget, smallest, fastest) // 200)
    steps, tokens, seconds, flops = 0, 0, 0.0, 0.0
    while True:
        step = costs.of(config.schedule.at(Progress(steps, tokens, seconds), budget))
        step_seconds = step.flops / flops_per_second
        count = min(stride, _steps_within(budget, step.tokens, step_seconds, steps, tokens, seconds))
        if count <= 0:
            return Duration(max(1, steps), tokens or step.tokens, seconds or step_seconds, flops or step.flops)
        steps += count
        tokens += count * step.tokens
        seconds += count * step_seconds
        flops += count * step.flops


class _StepCosts:
    """What steps of each kind cost."""

    def __init__(self, config: Recipe) -> None:
        self.config = config
        self.known: dict[object, _StepCost] = {}

    def of(self, settings: Settings) -> _StepCost:
        key = (settings.phase.looped, settings.phase.windows, settings.shape)
        if key not in self.known:
            loader, phase = self.config.data.loader.shaped(settings.shape), settings.phase
            cost = model_cost(self.config.model, loader.seq_len, looped=phase.looped, windows=phase.windows)
            self.known[key] = _StepCost(loader.batch_tokens, loader.batch_tokens * cost.train_flops_per_token)
        return self.known[key]


def _steps_within(
    budget: Budget, batch: int, step_seconds: float, steps: int = 0, tokens: int = 0, seconds: float = 0.0
) -> int:
    """Further steps of that size and length before the first training limit."""
    limits = []
    if budget.train_steps is not None:
        limits.append(float(budget.train_steps - steps))
    if budget.train_tokens is not None:
        limits.append((budget.train_tokens - tokens) / batch)
    if budget.train_seconds is not None:
        limits.append((budget.train_seconds - seconds) / step_seconds)
    return int(min(limits))


def _memory(config: Recipe, params: int, world: World) -> int:
    """Weights, gradients, optimiser state and an average in float32, plus the activations of one micro-batch for backward.

    Per token and execution of a block (a recurrent layer keeps those of every pass): the block's input and mix, two normalised
    copies, q, k, v, the attention output, the stream after attention, and two hidden-width tensors; then logits and their
    gradient.
    """
    model, width, budget = config.model, config.model.model_dim, config.budget
    shapes = [settings.shape for settings in config.schedule.kinds(budget)]
    loader = max((config.data.loader.shaped(shape) for shape in shapes), key=lambda shaped: shaped.batch_tokens)
    kv = width * model.attention.num_kv_heads // model.attention.num_heads
    per_block = 6 * width + (width + 2 * kv) + 2 * model.mlp.hidden_dim(width)
    item = 4 if world.device == "cpu" else 2
    depth = len(executions(model.topology.plan(model.num_layers)))
    per_token = item * (depth * per_block + 2 * model.vocab_size)
    rows = -(-loader.rows_per_step // world.size)
    row_tokens = loader.batch_tokens // loader.rows_per_step
    micro_batches = min(rows, -(-rows * row_tokens // config.train.micro_batch_tokens))
    tokens = -(-rows // micro_batches) * row_tokens
    return (16 + (4 if config.averaging else 0)) * params + tokens * per_token


def _device_memory(world: World) -> int:
    if world.device == "cpu":
        import os

        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return torch.cuda.get_device_properties(world.device).total_memory
