"""The training loop of a flat script: `train.loop` without checkpoints, resuming, traces and diagnosis."""

import gc
import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from underpar.core.world import World
from underpar.data.context import Batch
from underpar.data.loaders import StepLoader, synthetic_step
from underpar.evaluate.score import LossFunction, Score, add_up, charge
from underpar.lab.build import build_model, scorer
from underpar.lab.short.data import load_tokenizer, load_validation
from underpar.model.compiled import compile_model
from underpar.optim.schedules import Progress, Settings
from underpar.recipes.base import Recipe
from underpar.train.pace import InFlight, Pace
from underpar.train.preparation import ragged_variants
from underpar.train.weights import set_weights


class Run:
    """One run. `log` takes the lines of the published log."""

    def __init__(self, config: Recipe, data: Path, world: World, log: Callable[[str], None]) -> None:
        self.config, self.training, self.world, self.log = config, config.train, world, log
        self.on_cuda = world.device != "cpu"
        self.model = build_model(config, world)
        self.model.compute_dtype = self.training.dtype(world)
        self.forward: Callable[..., Tensor] = self.model
        if self.training.compile and self.on_cuda:
            self.forward = compile_model(self.model)
        self.optimisers = config.optim.build(self.model, world)
        self.budget = copy(config.budget)
        if self.budget.train_seconds is not None:
            self.budget.train_seconds -= self.budget.calibration_seconds
        self.bos_id = load_tokenizer(data).bos_id
        self.loader = StepLoader(
            data, config.data.loader, self.bos_id, world, micro_batch_tokens=self.training.micro_batch_tokens
        )
        self.held_out = load_validation(data).first(config.evaluate.first_tokens)
        average = config.averaging
        self.average = None if average is None else average.build(dict(self.model.named_parameters()))
        kinds = (replace(s, phase=self.model.effective_phase(s.phase)) for s in config.schedule.kinds(self.budget))
        self.kinds: dict[object, Settings] = {}
        for settings in kinds:
            self.kinds.setdefault(settings.kind, settings)
        self.step = self.tokens = 0
        self.total = config.budget.train_steps or 0
        self.began = 0.0
        self._pace = Pace(self.on_cuda)
        self._step_seconds: list[float] = []

    def run(self) -> dict[str, Tensor]:
        """Train to the end of the budget and validate. Returns the weights to be packed."""
        self._warm_up()
        self._announce()
        gc.collect()
        gc.freeze()
        seconds, every = 0.0, self.training.validate_every_steps
        self.began = time.perf_counter()
        while not self._is_over(seconds):
            began = time.perf_counter()
            self._one_step(seconds)
            (seconds,) = self.world.agree(self.elapsed)
            self._step_seconds.append(time.perf_counter() - began)
            if every and self.step % every == 0 and not self._is_over(seconds):
                self._drain()
                self._validate(self._final())
        self.loader.close()
        self._drain()
        final, seconds = self._final(), self.elapsed
        if self.training.validate_at_end:
            if self.average is not None:
                self._validate(self._raw())
            self._validate(final)
        if not self.total or self.step < self.total:
            self.log(f"stopping_early: wallclock_cap train_time:{seconds * 1e3:.0f}ms step:{self.step}/{self.total}")
        return final

    @property
    def elapsed(self) -> float:
        """Seconds on the clock."""
        return time.perf_counter() - self.began

    def _raw(self) -> dict[str, Tensor]:
        return {name: param.detach().clone() for name, param in self.model.named_parameters()}

    def _final(self) -> dict[str, Tensor]:
        return self._raw() if self.average is None else self.average.averaged()

    def _warm_up(self) -> None:
        """As `train.preparation.warm_up`; nothing was trained before, so that state is put back by starting again."""
        kinds, raw, rounds = list(self.kinds.values()), self._raw(), self.training.warmup_steps
        compiled = max(len(kinds), self.optimisers.period) if rounds else 0
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if self.on_cuda else []):
            for number in range(max(rounds, compiled)):
                settings = replace(kinds[number % len(kinds)], step=number)
                batches = synthetic_step(
                    self.loader.shaped(settings.shape), self.config.model.vocab_size, self.bos_id, self.world,
                    self.training.micro_batch_tokens,
                )  # fmt: skip
                self._update(batches, settings, 1)
                if number < compiled:
                    self._accumulate(ragged_variants(batches), settings)
                    self.model.zero_grad(set_to_none=True)
        set_weights(self.model, raw)
        self.optimisers.reset()
        if self.average is not None:
            self.average.reset()
        if self.on_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()

    def _announce(self) -> None:
        config, budget = self.config, self.config.budget
        batch_tokens, seq_len = next(iter(self.kinds.values())).shape or self.loader.own_shape
        self.log(f"model_params:{self.model.num_parameters()}")
        micro_batches = -(-(config.data.loader.batch_tokens // self.world.size) // self.training.micro_batch_tokens)
        self.log(f"world_size:{self.world.size} grad_accum_steps:{micro_batches}")
        self.log(
            f"train_batch_tokens:{batch_tokens} train_seq_len:{seq_len} iterations:{self.total} "
            f"warmup_steps:{self.training.warmup_steps} max_wallclock_seconds:{budget.train_seconds or 0:.3f}"
        )
        self.log(f"seed:{config.seed}")
        if budget.calibration_seconds and budget.train_seconds is not None:
            effective = round((budget.train_seconds - budget.calibration_seconds) * 1e3)
            self.log(f"gptq:reserving {budget.calibration_seconds:.2f}s, effective={effective}ms")

    def _one_step(self, seconds: float) -> None:
        settings = self.config.schedule.at(Progress(self.step, self.tokens, seconds), self.budget)
        batches = self.loader.fetch(settings.shape)
        loss = self._update(batches, settings, self.step + 1)
        self.step += 1
        self.tokens += self.loader.batch_tokens(settings.shape)
        for finished in self._pace.launched(InFlight({"at": self._at()}, loss, batches, settings.phase)):
            self._settle(finished)

    def _update(self, batches: list[Batch], settings: Settings, step: int) -> Tensor:
        loss = self.world.sum_(self._accumulate(batches, settings))
        self.optimisers.step(settings)
        if self.average is not None:
            self.average.update(step, settings)
        return loss

    def _accumulate(self, batches: list[Batch], settings: Settings) -> Tensor:
        """As `train.loop.Trainer.accumulate`."""
        phase, weights = self.model.effective_phase(settings.phase), settings.target_weights
        given = None if weights is None else torch.tensor(weights).to(self.world.device)
        tokens = self.loader.batch_tokens(settings.shape)
        total = torch.zeros((), device=self.world.device)
        for batch in batches:
            summed = self.forward(batch.inputs, batch.targets, batch.context, phase, None, given).sum()
            (summed / self.training.gradient_scale.divisor(tokens)).backward()
            total += summed.detach() / tokens
        return total

    def _is_over(self, seconds: float) -> bool:
        """Whether the next step would break a limit; in seconds, steps still on the device are foreseen."""
        budget = self.budget
        if budget.train_steps is not None and self.step >= budget.train_steps:
            return True
        if budget.train_tokens is not None and self.tokens >= budget.train_tokens:
            return True
        if budget.train_seconds is None or not self.step:
            return False
        pace = max(*self._step_seconds[-20:], seconds / self.step)
        return seconds + (len(self._pace) + 1) * pace > budget.train_seconds

    def _at(self) -> tuple[int, str]:
        """The step, and the rest of its line in the log."""
        milliseconds = self.elapsed * 1e3
        return self.step, f"train_time:{milliseconds:.0f}ms step_avg:{milliseconds / max(1, self.step):.2f}ms"

    def _settle(self, finished: InFlight) -> None:
        step, at = finished.event["at"]
        if step % self.training.log_every_steps == 0 or step <= 10:
            self.log(f"step:{step}/{self.total} train_loss:{round(float(finished.loss), 6):.4f} {at}")

    def _drain(self) -> None:
        for finished in self._pace.drained():
            self._settle(finished)

    def scored(self, losses_of: LossFunction) -> Score:
        """What the held-out text costs, without adaptation."""
        config, began = self.config.evaluate, time.perf_counter()
        nats = charge(
            losses_of,
            self.held_out,
            config.window,
            bos_id=self.bos_id,
            world=self.world,
            batch_tokens=config.batch_tokens,
        )
        return add_up(nats, self.held_out, time.perf_counter() - began)

    def _validate(self, weights: dict[str, Tensor]) -> None:
        """Score the held-out text with these weights, off the clock."""
        (step, at), stopped, raw = self._at(), self.elapsed, self._raw()
        set_weights(self.model, weights)
        found = self.scored(scorer(self.model, self.world))
        set_weights(self.model, raw)
        self.log(f"step:{step}/{self.total} val_loss:{found.loss_nats:.4f} val_bpb:{found.bpb:.4f} {at}")
        self.began = time.perf_counter() - stopped
