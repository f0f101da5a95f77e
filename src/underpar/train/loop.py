"""The training loop: steps until the budget is spent, with everything that can stop, resume or explain a run."""

import signal
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from underpar.core.budget import Budget
from underpar.core.clock import Clock
from underpar.core.config import Config, NonNegativeInt, PositiveFloat, PositiveInt, config
from underpar.core.errors import TrainError
from underpar.core.world import World
from underpar.data.context import Batch
from underpar.data.loaders import StepLoader, synthetic_step
from underpar.model.gpt import GPT
from underpar.optim.partition import Optimisers
from underpar.optim.schedules import Progress, Schedule, Settings
from underpar.train.checkpoint import Position, complete_checkpoints, load_checkpoint, save_checkpoint
from underpar.train.diagnose import first_bad_tensor
from underpar.train.events import EffectTrace, Sinks

MAX_IN_FLIGHT = 2
"""Steps that the host may be ahead of the device: enough to hide launches, few enough for the clock to be honest."""


@config
class Training(Config):
    """How the loop runs; none of these is part of the method, but all can move a score a little."""

    micro_batch_tokens: PositiveInt = 262_144
    """Most tokens that one forward and backward takes on one device; more processes need fewer micro-batches."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Dtype of the activations; auto is bfloat16 on CUDA and float32 elsewhere. Master weights stay as declared."""
    compile: bool = True
    """torch.compile on CUDA. On a CPU it costs more than a short run gains, and is off."""
    warmup_steps: NonNegativeInt = 20
    """Steps on random tokens before the clock starts, after which all state is put back."""
    log_every_steps: PositiveInt = 10
    validate_every_steps: NonNegativeInt = 0
    """0 validates only after training."""
    checkpoint_every_seconds: PositiveFloat = 300.0

    def dtype(self, world: World) -> torch.dtype:
        if self.precision == "auto":
            return torch.float32 if world.device == "cpu" else torch.bfloat16
        return getattr(torch, self.precision)


@dataclass(frozen=True)
class TrainResult:
    """What a training run did. Seconds are on the budget clock; pauses are listed by reason."""

    steps: int
    tokens: int
    train_seconds: float
    params: int
    step_ms_median: float
    tokens_per_second: float
    peak_memory_bytes: int | None
    stop_reason: str
    final_loss_nats: float
    world_size: int
    paused_seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _InFlight:
    """A step whose work may still be on the device, and the event that is logged once its loss is known."""

    event: dict[str, Any]
    loss: Tensor
    done: "torch.cuda.Event | None"
    batches: list[Batch]


class Trainer:
    """Trains one model within one budget.

    validate: called as validate(model) with the clock paused; returns (loss in nats, bits per byte).
    """

    def __init__(
        self,
        *,
        model: GPT,
        optimisers: Optimisers,
        schedule: Schedule,
        budget: Budget,
        loader: StepLoader,
        training: Training,
        world: World,
        folder: Path,
        fingerprint: str,
        sinks: Sinks,
        validate: Callable[[GPT], tuple[float, float]] | None = None,
    ) -> None:
        self.model, self.optimisers, self.schedule, self.budget = model, optimisers, schedule, budget
        self.loader, self.training, self.world, self.sinks = loader, training, world, sinks
        self.folder, self.fingerprint, self.validate = folder, fingerprint, validate
        self.on_cuda = world.device != "cpu"
        model.compute_dtype = training.dtype(world)
        self.forward: Callable[..., Tensor] = model
        if training.compile and self.on_cuda:
            self.forward = torch.compile(model, dynamic=False, fullgraph=True)
        self.clock = Clock()
        self.trace = EffectTrace()
        self.step = self.tokens = 0
        self._in_flight: deque[_InFlight] = deque()
        self._step_ms: list[float] = []
        self._last_loss = float("nan")
        self._interrupted = False

    # ------------------------------------------------------------------------------------------------- life cycle

    def resume(self) -> bool:
        """Take up the newest complete checkpoint, if there is one."""
        found = complete_checkpoints(self.folder)
        if not found:
            return False
        position, model_state, optimiser_state = load_checkpoint(found[-1], self.fingerprint)
        wanted = dict(self.model.named_parameters())
        odd = [n for n in sorted(wanted.keys() | model_state) if _shape(wanted, n) != _shape(model_state, n)]
        if odd:
            raise TrainError(f"checkpoint {found[-1]} does not fit the model: {odd[0]} differs; use another --out")
        with torch.no_grad():
            for name, param in wanted.items():
                param.copy_(model_state[name])
        self.optimisers.load_state_tensors({k: v.to(self.world.device) for k, v in optimiser_state.items()})
        self.step, self.tokens = position.step, position.tokens
        self.loader.position = position.loader_position
        self.clock = Clock(position.train_seconds)
        self.clock.paused_seconds |= position.paused_seconds
        self.trace = EffectTrace(position.trace)
        return True

    @property
    def is_finished(self) -> bool:
        """Whether a resumed run has nothing left of its budget."""
        return self._limit_reached(self.clock.elapsed) is not None

    def run(self) -> TrainResult:
        """Train to the end of the budget, or to an interrupt. Raises TrainError on a non-finite loss."""
        self._warm_up()
        self._announce()
        with self._watch_signals():
            reason = self._steps()
        self._checkpoint()
        self.sinks.log(
            {"event": "stop", "reason": reason, "step": self.step, "train_seconds": round(self.clock.elapsed, 3)}
        )
        return self._result(reason)

    def _steps(self) -> str:
        self.clock.start()
        last_checkpoint = time.perf_counter()
        seconds = self.clock.elapsed
        reason = self._limit_reached(seconds)
        batches = iter(self.loader)
        try:
            while reason is None:
                began = time.perf_counter()
                self._one_step(next(batches), seconds)
                due: float = time.perf_counter() - last_checkpoint >= self.training.checkpoint_every_seconds
                seconds, interrupted, due = self.world.agree(self.clock.elapsed, self._interrupted, due)
                self._step_ms.append((time.perf_counter() - began) * 1e3)
                reason = "interrupted" if interrupted else self._limit_reached(seconds)
                if reason is None and due:
                    self._drain()
                    with self.clock.pause("checkpoint"):
                        self._checkpoint()
                    last_checkpoint = time.perf_counter()
                every = self.training.validate_every_steps
                if reason is None and every and self.step % every == 0:
                    self._run_validation()
        finally:
            batches.close()  # type: ignore[attr-defined]
        self._drain()
        self.clock.stop()
        return reason

    def _one_step(self, batches: list[Batch], seconds: float) -> None:
        settings = self.schedule.at(Progress(self.step, self.tokens, seconds), self.budget)
        loss = self.world.sum_(self._accumulate(batches))  # so that every process sees a non-finite loss anywhere
        if not self.on_cuda and not torch.isfinite(loss):
            self._fail(self.step + 1, batches)  # before the update spreads it
        used = self.optimisers.step(settings)
        self.model.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += self.loader.config.batch_tokens
        self.trace.record(self.step, used | {"train.batch_tokens": self.loader.config.batch_tokens})
        self._queue(loss, batches, settings)

    def _accumulate(self, batches: list[Batch]) -> Tensor:
        """Forward and backward over this process's share; gradients end as its part of the mean over the whole step."""
        total = torch.zeros((), device=self.world.device)
        for batch in batches:
            loss = self.forward(batch.inputs, batch.targets, batch.context).sum() / self.loader.config.batch_tokens
            loss.backward()
            total += loss.detach()
        return total

    def _limit_reached(self, seconds: float) -> str | None:
        """Which limit the next step would break. In seconds, steps still on the device and the next one are foreseen."""
        budget = self.budget
        if budget.train_steps is not None and self.step >= budget.train_steps:
            return "train_steps"
        if budget.train_tokens is not None and self.tokens >= budget.train_tokens:
            return "train_tokens"
        if budget.train_seconds is not None:
            slowest = max(self._step_ms[-20:], default=0.0) / 1e3
            pace = max(slowest, seconds / self.step) if self.step else 0.0
            if seconds + (len(self._in_flight) + 1) * pace > budget.train_seconds:
                return "train_seconds"
        return None

    # ------------------------------------------------------------------------------------------------- device pace

    def _queue(self, loss: Tensor, batches: list[Batch], settings: Settings) -> None:
        event = {
            "event": "step", "step": self.step, "tokens": self.tokens, "train_seconds": round(self.clock.elapsed, 4),
            "step_ms": round(statistics.median(self._step_ms[-50:]), 3) if self._step_ms else None,
            "lr_scale": round(settings.lr_scale, 6), "momentum": round(settings.momentum, 6),
        }  # fmt: skip
        done = None
        if self.on_cuda:
            loss = loss.to("cpu", non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        self._in_flight.append(_InFlight(event, loss, done, batches))
        while len(self._in_flight) > (MAX_IN_FLIGHT if self.on_cuda else 0):
            self._settle()

    def _settle(self) -> None:
        oldest = self._in_flight.popleft()
        if oldest.done is not None:
            oldest.done.synchronize()
        self._last_loss = float(oldest.loss)
        step = oldest.event["step"]
        if not torch.isfinite(oldest.loss):
            self._fail(step, oldest.batches)
        if step % self.training.log_every_steps == 0 or step <= 10:
            self.sinks.log(oldest.event | {"loss_nats": round(self._last_loss, 6)})

    def _drain(self) -> None:
        while self._in_flight:
            self._settle()
        if self.on_cuda:
            torch.cuda.synchronize()

    def _fail(self, step: int, batches: list[Batch]) -> None:
        bad = first_bad_tensor(self.model, batches)
        raise TrainError(
            f"non-finite loss at step {step}: first bad tensor is {bad}; lower the learning rate of its role"
        )

    # ------------------------------------------------------------------------------------------------- around the steps

    def _warm_up(self) -> None:
        """Compile and settle everything on random tokens, then put every parameter and optimiser buffer back."""
        if not self.training.warmup_steps:
            return
        with self.clock.pause("warm-up"):
            config = self.loader.config
            batches = synthetic_step(
                config, self.model.config.vocab_size, self.loader.bos_id, self.world, self.training.micro_batch_tokens
            )
            weights = [p.detach().clone() for p in self.model.parameters()]
            state = {k: v.clone() for k, v in self.optimisers.state_tensors().items()}
            settings = self.schedule.at(Progress(0, 0, 0.0), self.budget)
            for _ in range(self.training.warmup_steps):
                self._accumulate(batches)
                self.optimisers.step(settings)
                self.model.zero_grad(set_to_none=True)
            with torch.no_grad():
                for param, weight in zip(self.model.parameters(), weights, strict=True):
                    param.copy_(weight)
            self.optimisers.reset()
            self.optimisers.load_state_tensors(state)
            if self.on_cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()

    def _announce(self) -> None:
        config = self.loader.config
        self.sinks.log({
            "event": "start", "step": self.step, "params": self.model.num_parameters(), "world_size": self.world.size,
            "device": self.world.device, "batch_tokens": config.batch_tokens, "seq_len": config.seq_len,
            "train_seconds": round(self.clock.elapsed, 3),
            "warmup_seconds": round(self.clock.paused_seconds.get("warm-up", 0.0), 3),
        })  # fmt: skip

    def _run_validation(self) -> None:
        if self.validate is None:
            return
        self._drain()  # what is still on the device is training, and on the clock
        with self.clock.pause("validation"):
            loss, bpb = self.validate(self.model)
        self.sinks.log({
            "event": "validation", "step": self.step, "loss_nats": loss, "bpb": bpb,
            "train_seconds": round(self.clock.elapsed, 4),
        })  # fmt: skip

    def _checkpoint(self) -> None:
        optimiser = self.optimisers.state_tensors()  # collective
        if self.world.is_main:
            position = Position(
                fingerprint=self.fingerprint,
                step=self.step,
                tokens=self.tokens,
                train_seconds=self.clock.elapsed,
                loader_position=self.loader.position,
                trace=self.trace.changes,
                paused_seconds=dict(self.clock.paused_seconds),
            )
            path = save_checkpoint(self.folder, position, dict(self.model.named_parameters()), optimiser)
            self.sinks.log({"event": "checkpoint", "step": self.step, "path": str(path)})
        self.world.barrier()

    @contextmanager
    def _watch_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM finish the current step, write a checkpoint and leave; a second one ends at once."""

        def note(number: int, _frame: object) -> None:
            if self._interrupted:
                signal.default_int_handler(number, None)
            self._interrupted = True

        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, note)
        except ValueError:  # not the main thread: the caller handles signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _result(self, reason: str) -> TrainResult:
        seconds = self.clock.elapsed
        return TrainResult(
            steps=self.step,
            tokens=self.tokens,
            train_seconds=seconds,
            params=self.model.num_parameters(),
            step_ms_median=statistics.median(self._step_ms) if self._step_ms else float("nan"),
            tokens_per_second=self.tokens / seconds if seconds else float("nan"),
            peak_memory_bytes=torch.cuda.max_memory_allocated() if self.on_cuda else None,
            stop_reason=reason,
            final_loss_nats=self._last_loss,
            world_size=self.world.size,
            paused_seconds={k: round(v, 3) for k, v in self.clock.paused_seconds.items()},
        )


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None
