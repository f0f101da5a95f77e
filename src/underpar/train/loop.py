"""The training loop: steps until the budget is spent, with everything that can stop, resume or explain a run."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underpar.core.budget import Budget
from underpar.core.clock import Clock
from underpar.core.errors import Exhausted, TrainError
from underpar.core.phase import Phase, WindowSizes
from underpar.core.world import World
from underpar.data.context import Batch
from underpar.data.loaders import StepLoader
from underpar.model.compiled import compile_model, graphs_compiled
from underpar.model.gpt import GPT
from underpar.optim.averaging import WeightAverage
from underpar.optim.partition import Optimisers
from underpar.optim.schedules import Progress, Schedule, Settings
from underpar.train.checkpoint import Checkpoint, Position, complete_checkpoints, load_checkpoint, save_checkpoint
from underpar.train.diagnose import first_bad_tensor
from underpar.train.events import EffectTrace, Sinks
from underpar.train.pace import InFlight, Pace
from underpar.train.preparation import warm_up
from underpar.train.process import Interrupts, unburdened_collector
from underpar.train.training import AVERAGED, RAW, Training, TrainResult
from underpar.train.weights import averaged_weights, set_weights


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
        average: WeightAverage | None = None,
    ) -> None:
        self.model, self.optimisers, self.schedule, self.budget = model, optimisers, schedule, budget
        self.loader, self.world, self.sinks = loader, world, sinks
        self.folder, self.fingerprint, self.validate, self.average = folder, fingerprint, validate, average
        self.on_cuda = world.device != "cpu"
        model.compute_dtype = training.dtype(world)
        self.forward: Callable[..., Tensor] = model
        if training.compile and self.on_cuda:
            self.forward = compile_model(model)
        self.gradient_scale = training.gradient_scale
        self.warmup_steps, self.checkpoint_every_seconds = training.warmup_steps, training.checkpoint_every_seconds
        self.log_every, self.validate_every = training.log_every_steps, training.validate_every_steps
        self.validate_at_end = training.validate_at_end
        self.kinds = self._distinct_kinds()
        self.phases = tuple(dict.fromkeys(kind.phase for kind in self.kinds))
        self.obeyed = _obeyed(model)
        self.clock = Clock()
        self.trace = EffectTrace()
        self.step = self.tokens = self.recompilations = 0
        self.visited_seconds: list[float] = []
        self._pace = Pace(self.on_cuda)
        self._step_ms: list[float] = []
        self._last_loss = self._step_ms_before = float("nan")
        self._interrupts = Interrupts()

    def _distinct_kinds(self) -> tuple[Settings, ...]:
        """Settings of every kind of step that this model tells from the others: each compiles to a graph of its own."""
        every = (replace(s, phase=self.model.effective_phase(s.phase)) for s in self.schedule.kinds(self.budget))
        found: dict[object, Settings] = {}
        for settings in every:
            found.setdefault(settings.kind, settings)
        return tuple(found.values())

    # ------------------------------------------------------------------------------------------------- life cycle

    def resume(self) -> bool:
        """Take up the newest complete checkpoint, if there is one."""
        found = complete_checkpoints(self.folder)
        if not found:
            return False
        position, model_state, optimiser_state, averaging_state = load_checkpoint(found[-1], self.fingerprint)
        wanted = dict(self.model.named_parameters())
        odd = [n for n in sorted(wanted.keys() | model_state) if _shape(wanted, n) != _shape(model_state, n)]
        if odd:
            raise TrainError(f"checkpoint {found[-1]} does not fit the model: {odd[0]} differs; use another --out")
        set_weights(self.model, model_state)
        self.optimisers.load_state_tensors({k: v.to(self.world.device) for k, v in optimiser_state.items()})
        if self.average:
            self.average.reset()
            self.average.load_state_tensors({k: v.to(self.world.device) for k, v in averaging_state.items()})
        self.step, self.tokens = position.step, position.tokens
        self.loader.position = position.loader_position
        self.clock = Clock(position.train_seconds)
        self.clock.paused_seconds |= position.paused_seconds
        self.trace = EffectTrace(position.trace)
        self.visited_seconds, self.recompilations = position.visited_seconds, position.recompilations
        self._last_loss = float("nan") if position.loss_nats is None else position.loss_nats
        self._step_ms_before = float("nan") if position.step_ms_median is None else position.step_ms_median
        return True

    @property
    def is_finished(self) -> bool:
        """Whether a resumed run has nothing left of its budget."""
        return self._limit_reached(self.clock.elapsed) is not None

    def run(self) -> TrainResult:
        """Train to the end of the budget and validate what came out, or go to an interrupt.

        Raises TrainError on a non-finite loss, and Exhausted when the text ends before the budget, with a checkpoint behind it.
        """
        if not self.is_finished:
            warm_up(self)
        self._announce()
        with self._interrupts.watched(), unburdened_collector():
            reason = self._steps()
        self._checkpoint()
        validation = self._validate_outcome() if self.validate_at_end and reason != "interrupted" else {}
        self.sinks.log(
            {"event": "stop", "reason": reason, "step": self.step, "train_seconds": round(self.clock.elapsed, 3)}
        )
        return self._result(reason, validation)

    def _steps(self) -> str:
        self.clock.start()
        last_checkpoint = time.perf_counter()
        seconds = self.clock.elapsed
        reason = self._limit_reached(seconds)
        try:
            while reason is None:
                began = time.perf_counter()
                self._one_step(seconds)
                due: float = time.perf_counter() - last_checkpoint >= self.checkpoint_every_seconds
                seconds, interrupted, due = self.world.agree(self.clock.elapsed, self._interrupts.asked, due)
                self._step_ms.append((time.perf_counter() - began) * 1e3)
                reason = "interrupted" if interrupted else self._limit_reached(seconds)
                if reason is None and due:
                    self._drain()
                    with self.clock.pause("checkpoint"):
                        self._checkpoint()
                    last_checkpoint = time.perf_counter()
                if reason is None and self.validate_every and self.step % self.validate_every == 0:
                    self._drain()  # what is still on the device is training, and on the clock
                    self._validate(AVERAGED if self.average else RAW)
        except Exhausted as problem:
            self._drain()
            with self.clock.pause("checkpoint"):
                self._checkpoint()
            raise Exhausted(f"{problem}; {self.step:,} steps are kept, and with more shards the run goes on") from None
        finally:
            self.loader.close()
        self._drain()
        self.clock.stop()
        return reason

    def _one_step(self, seconds: float) -> None:
        self.clock.mark("step")
        graphs = graphs_compiled()
        settings = self.schedule.at(Progress(self.step, self.tokens, seconds), self.budget)
        batches = self.loader.fetch(settings.shape)
        self.visited_seconds.append(round(seconds, 6))
        loss, used = self.update(batches, settings, self.step + 1)
        self.step += 1
        self.tokens += self.loader.batch_tokens(settings.shape)
        self.trace.record(self.step, used)
        for finished in self._pace.launched(InFlight(self._step_event(settings), loss, batches, settings.phase)):
            self._settle(finished)
        if graphs_compiled() > graphs:
            self.recompilations += graphs_compiled() - graphs
            self.sinks.log({"event": "recompilation", "step": self.step, "graphs": graphs_compiled() - graphs})

    def update(self, batches: list[Batch], settings: Settings, step: int) -> tuple[Tensor, dict[str, float]]:
        """One optimiser step, the model's step number `step`. Returns the loss and every setting that was consumed."""
        phase = self.model.effective_phase(settings.phase)
        loss = self.world.sum_(self.accumulate(batches, settings))  # every process sees a non-finite loss anywhere
        if not self.on_cuda and not torch.isfinite(loss):
            self._fail(step, batches, phase)  # before the update spreads it
        used = self.optimisers.step(settings)
        if self.average:
            used |= self.average.update(step, settings)
        used |= {f"phase.{name}": float(getattr(phase, name)) for name in self.obeyed if name != "windows"}
        return loss, used | self._seen(batches, settings)

    def _seen(self, batches: list[Batch], settings: Settings) -> dict[str, float]:
        """What the step was really like, whatever the loader was asked for."""
        rows = self.loader.shaped(settings.shape).rows_per_step
        mine = sum(batch.inputs.numel() for batch in batches)
        seen = {
            "train.batch_tokens": mine * rows / len(self.world.share(rows)),
            "train.seq_len": max(batch.context.max_seqlen for batch in batches),
        }
        windows = self.model.effective_phase(settings.phase).windows
        if windows is not None:
            seen |= {"phase.windows.short": float(windows.short), "phase.windows.long": float(windows.long)}
        weights = settings.target_weights or ()
        return seen | {f"train.target_weight_{ahead}": weight for ahead, weight in enumerate(weights, start=1)}

    def accumulate(self, batches: list[Batch], settings: Settings) -> Tensor:
        """Forward and backward over this process's share; gradients end as its part of the whole step's.

        Returns its part of the mean loss.
        """
        phase, weights = self.model.effective_phase(settings.phase), self._on_device(settings.target_weights)
        tokens = self.loader.batch_tokens(settings.shape)
        divisor = self.gradient_scale.divisor(tokens)
        total = torch.zeros((), device=self.world.device)
        for batch in batches:
            losses = self.forward(batch.inputs, batch.targets, batch.context, phase, None, weights)
            summed = losses.sum()
            (summed / divisor).backward()
            total += summed.detach() / tokens
        return total

    def _on_device(self, values: tuple[float, ...] | None) -> Tensor | None:
        """As a tensor, so that a new value is no new graph; copied without waiting for the device."""
        if values is None:
            return None
        host = torch.tensor(values)
        return (host.pin_memory() if self.on_cuda else host).to(self.world.device, non_blocking=True)

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
            if seconds + (len(self._pace) + 1) * pace > budget.train_seconds:
                return "train_seconds"
        return None

    # ------------------------------------------------------------------------------------------------- losses

    def _step_event(self, settings: Settings) -> dict[str, Any]:
        return {
            "event": "step", "step": self.step, "tokens": self.tokens, "train_seconds": round(self.clock.elapsed, 4),
            "step_ms": round(statistics.median(self._step_ms[-50:]), 3) if self._step_ms else None,
            "lr_scale": round(settings.lr_scale, 6), "momentum": round(settings.momentum, 6),
            "targets": len(settings.target_weights or (1.0,)),
        }  # fmt: skip

    def _settle(self, finished: InFlight) -> None:
        self._last_loss = float(finished.loss)
        step = finished.event["step"]
        if not torch.isfinite(finished.loss):
            self._fail(step, finished.batches, finished.phase)
        if step % self.log_every == 0 or step <= 10:
            self.sinks.log(finished.event | {"loss_nats": round(self._last_loss, 6)})

    def _drain(self) -> None:
        for finished in self._pace.drained():
            self._settle(finished)

    def _fail(self, step: int, batches: list[Batch], phase: Phase) -> None:
        bad = first_bad_tensor(self.model, batches, phase)
        raise TrainError(
            f"non-finite loss at step {step}: first bad tensor is {bad}; lower the learning rate of its role"
        )

    # ------------------------------------------------------------------------------------------------- around the steps

    def _announce(self) -> None:
        batch_tokens, seq_len = self.kinds[0].shape or self.loader.own_shape
        most_tokens = max(self.loader.batch_tokens(kind.shape) for kind in self.kinds)
        self.sinks.log({
            "event": "start", "step": self.step, "params": self.model.num_parameters(), "world_size": self.world.size,
            "device": self.world.device, "batch_tokens": batch_tokens, "most_batch_tokens": most_tokens, "seq_len": seq_len,
            "train_seconds": round(self.clock.elapsed, 3),
            "compile_seconds": round(self.clock.paused_seconds.get("compile", 0.0), 3),
            "warmup_seconds": round(self.clock.paused_seconds.get("warm-up", 0.0), 3),
        })  # fmt: skip

    def _validate_outcome(self) -> dict[str, dict[str, float]]:
        """The finished weights before quantisation; those that count come last."""
        which = (RAW, AVERAGED) if self.average else (RAW,)
        return {name: self._validate(name) for name in which if self.validate}

    def _validate(self, which: str) -> dict[str, float]:
        if self.validate is None:
            return {}
        assert not len(self._pace), "steps on the device are training, and on the clock"
        with self.clock.pause("validation"), averaged_weights(self.model, self.average if which == AVERAGED else None):
            loss, bpb = self.validate(self.model)
        self.sinks.log({
            "event": "validation", "step": self.step, "weights": which, "loss_nats": loss, "bpb": bpb,
            "train_seconds": round(self.clock.elapsed, 4),
        })  # fmt: skip
        return {"loss_nats": loss, "bpb": bpb}

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
                visited_seconds=self.visited_seconds,
                recompilations=self.recompilations,
                loss_nats=_finite(self._last_loss),
                step_ms_median=_finite(self._step_ms_median),
            )
            averaging = self.average.state_tensors() if self.average else {}
            saved = Checkpoint(position, dict(self.model.named_parameters()), optimiser, averaging)
            path = save_checkpoint(self.folder, saved)
            self.sinks.log({"event": "checkpoint", "step": self.step, "path": str(path)})
        self.world.barrier()

    @property
    def _step_ms_median(self) -> float:
        return statistics.median(self._step_ms) if self._step_ms else self._step_ms_before

    def _result(self, reason: str, validation: dict[str, dict[str, float]]) -> TrainResult:
        seconds = self.clock.elapsed
        return TrainResult(
            steps=self.step,
            tokens=self.tokens,
            train_seconds=seconds,
            params=self.model.num_parameters(),
            step_ms_median=self._step_ms_median,
            tokens_per_second=self.tokens / seconds if seconds else float("nan"),
            peak_memory_bytes=torch.cuda.max_memory_allocated() if self.on_cuda else None,
            stop_reason=reason,
            final_loss_nats=self._last_loss,
            world_size=self.world.size,
            paused_seconds={k: round(v, 3) for k, v in self.clock.paused_seconds.items()},
            recompilations=self.recompilations,
            validation=validation,
            first_step_ms=round(self._step_ms[0], 3) if self._step_ms else None,
            reserved_memory_bytes=torch.cuda.max_memory_reserved() if self.on_cuda else None,
        )


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _obeyed(model: GPT) -> tuple[str, ...]:
    """The parts of a phase that make a difference to this model."""
    both = (False, True)
    distinct = model.distinct_phases(Phase(*v) for v in product(both, both, (None, WindowSizes(1, 2))))
    return tuple(name for name in Phase._fields if len({getattr(phase, name) for phase in distinct}) > 1)
