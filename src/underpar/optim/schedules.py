"""Every setting that changes during training, as a pure function of progress.

`Schedule.at(progress)` is the only place where learning rate and momentum come from; nothing else reads them. Progress can be
bounded by steps, tokens, seconds, or several at once: the bound that ends the run first decides.
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar, NamedTuple

from underpar.core.budget import Budget
from underpar.core.config import Config, Fraction, NonNegativeInt, PositiveInt, config, field
from underpar.core.errors import ConfigError
from underpar.core.phase import EVALUATION, Phase, StepShape
from underpar.optim.stages import StageTable, Standing


class Progress(NamedTuple):
    """How far a run is: optimiser steps done, tokens trained on, seconds on the budget clock."""

    step: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Settings:
    """What the loop and the optimisers obey for one step."""

    lr_scale: float
    """Multiplies the learning rate of every group."""
    momentum: float
    """Momentum of the Muon family."""
    decay_scale: float = 1.0
    """Multiplies the weight decay of every group."""
    matrix_decay_scale: float = 1.0
    """Multiplies that of the Muon family once more."""
    phase: Phase = EVALUATION
    """What the forward pass does."""
    step: int = 0
    """Optimiser steps done before this one."""
    shape: StepShape | None = None
    """What the loader cuts; None is what the loader itself says."""
    target_weights: tuple[float, ...] | None = None
    """Weights of the next token, the one after it and so on in the loss; None is the next token alone."""
    tied: bool = False
    """Whether embedding and head, two tables of the model, are to stay one."""

    @property
    def kind(self) -> tuple[Phase, StepShape | None, int]:
        """What decides which graph a step runs: steps of one kind differ in numbers only."""
        return self.phase, self.shape, len(self.target_weights or ())


def fraction_done(progress: Progress, budget: Budget) -> float:
    """The largest used share of any training limit, 0 to 1."""
    shares = [
        used / limit
        for used, limit in (
            (progress.step, budget.train_steps),
            (progress.tokens, budget.train_tokens),
            (progress.seconds, budget.train_seconds),
        )
        if limit is not None
    ]
    return min(1.0, max(shares))


def remaining_steps(progress: Progress, budget: Budget) -> float:
    """Steps left before the first limit, at the average pace so far; infinite before the first step."""
    if progress.step == 0:
        return float("inf") if budget.train_steps is None else float(budget.train_steps)
    left = []
    if budget.train_steps is not None:
        left.append(float(budget.train_steps - progress.step))
    if budget.train_tokens is not None:
        left.append((budget.train_tokens - progress.tokens) * progress.step / progress.tokens)
    if budget.train_seconds is not None and progress.seconds > 0:
        left.append((budget.train_seconds - progress.seconds) * progress.step / progress.seconds)
    return max(0.0, min(left, default=float("inf")))


class LearningRate(Config):
    """The multiplier of every group's learning rate."""

    def scale(self, progress: Progress, budget: Budget, peak: float = 1.0) -> float:
        """budget: of the scheduled steps, without an extension. peak: what the stage multiplies the rate by."""
        raise NotImplementedError


@config
class ConstantRate(LearningRate):
    """1 throughout."""

    def scale(self, progress: Progress, budget: Budget, peak: float = 1.0) -> float:
        return peak


@config
class WarmdownSteps(LearningRate):
    """1, then linear to 0 over the last `steps` steps. Under a time limit the end is foreseen from the average step time.

    Source: the stock trainer of the 16 MB game.
    """

    steps: PositiveInt = 1200

    def scale(self, progress: Progress, budget: Budget, peak: float = 1.0) -> float:
        return peak * min(1.0, remaining_steps(progress, budget) / self.steps)


@config
class WarmdownFraction(LearningRate):
    """1, then linear over the last `fraction` of the budget, never below `floor`. Source: golf PR #1530 line."""

    fraction: Fraction = 0.75
    floor: Fraction = 0.0

    def check(self) -> None:
        if self.fraction == 0:
            raise ConfigError("fraction = 0: use ConstantRate for no warm-down")

    def scale(self, progress: Progress, budget: Budget, peak: float = 1.0) -> float:
        left = 1.0 - fraction_done(progress, budget)
        return peak * min(1.0, max(left / self.fraction, self.floor))


@config
class Cooldown(LearningRate):
    """peak * (1 - t) + floor * t: t rises from 0 to 1 over the last `fraction` of the scheduled steps, and stays there.

    Under a budget of steps the cooldown begins at int(steps * (1 - fraction)). Source: modded-nanogpt, records 39 to 72.
    """

    fraction: Fraction = 0.55
    floor: Fraction = 0.10

    def scale(self, progress: Progress, budget: Budget, peak: float = 1.0) -> float:
        t = self._share(progress, budget)
        return peak * (1.0 - t) + self.floor * t

    def _share(self, progress: Progress, budget: Budget) -> float:
        if budget.train_steps is None:
            done, begins, end = fraction_done(progress, budget), 1.0 - self.fraction, 1.0
        else:
            done, begins, end = progress.step, int(budget.train_steps * (1 - self.fraction)), budget.train_steps
        if done < begins:
            return 0.0
        return 1.0 if begins >= end else min(1.0, (done - begins) / (end - begins))


@config
class ClampedCooldown(Cooldown):
    """A `Cooldown` that is cut off from below at `clamp`, whatever its floor. Source: modded-nanogpt PR #224."""

    clamp: Fraction = 0.15

    def scale(self, progress: Progress, budget: Budget, peak: float = 1.0) -> float:
        return max(Cooldown.scale(self, progress, budget, peak), self.clamp)


@config
class WarmupWarmdown(WarmdownFraction):
    """Linear from 0 over the first `warmup_steps`, then a `WarmdownFraction`. Source: the Adam reference of track 3."""

    warmup_steps: PositiveInt = 250

    def scale(self, progress: Progress, budget: Budget, peak: float = 1.0) -> float:
        rising = min(1.0, (progress.step + 1) / self.warmup_steps)
        return min(peak * rising, WarmdownFraction.scale(self, progress, budget, peak))


@config
class MomentumWarmup(Config):
    """Linear from `start` to `final` over `steps` steps, then `final`, and back to `start` over the last `cooldown_steps`.

    The cool-down is of the speedrun, where it takes 50 steps; its end is foreseen as that of a warm-down is.
    """

    start: Fraction = 0.85
    final: Fraction = 0.95
    steps: NonNegativeInt = 500
    cooldown_steps: NonNegativeInt = 0

    def at(self, progress: Progress, budget: Budget) -> float:
        share = min(progress.step / self.steps, 1.0) if self.steps else 1.0
        if self.cooldown_steps:
            share = min(share, remaining_steps(progress, budget) / self.cooldown_steps)
        return (1.0 - share) * self.start + share * self.final


class Switch(Config):
    """When something is on."""

    states: ClassVar[tuple[bool, ...]] = (False, True)
    """The values it takes during a run, in order."""

    def is_on(self, progress: Progress, budget: Budget, lr_scale: float) -> bool:
        raise NotImplementedError


@config
class Always(Switch):
    """On from the first step."""

    states: ClassVar[tuple[bool, ...]] = (True,)

    def is_on(self, progress: Progress, budget: Budget, lr_scale: float) -> bool:
        return True


@config
class Never(Switch):
    """Off throughout."""

    states: ClassVar[tuple[bool, ...]] = (False,)

    def is_on(self, progress: Progress, budget: Budget, lr_scale: float) -> bool:
        return False


@config
class FromFraction(Switch):
    """On once `fraction` of the training budget is used."""

    fraction: Fraction = 0.35

    def is_on(self, progress: Progress, budget: Budget, lr_scale: float) -> bool:
        return fraction_done(progress, budget) >= self.fraction


@config
class BelowRate(Switch):
    """On while the learning rate's multiplier is below `lr_scale`: late in training. Source: the late-QAT records of golf."""

    lr_scale: Fraction = 0.15

    def is_on(self, progress: Progress, budget: Budget, lr_scale: float) -> bool:
        return lr_scale < self.lr_scale


class WeightDecay(Config):
    """The multipliers of weight decay."""

    def scale(self, progress: Progress, budget: Budget, lr_scale: float) -> float:
        """Of every group."""
        return 1.0

    def matrix_scale(self, progress: Progress, budget: Budget) -> float:
        """Of the Muon family, once more."""
        return 1.0


@config
class ConstantDecay(WeightDecay):
    """1 throughout."""


@config
class DecayTaper(WeightDecay):
    """Of the Muon family alone: 1, then linear to `final` between the fraction `start` of the budget and its end.

    Source: golf PR #1729.
    """

    start: Fraction = 0.70
    final: Fraction = 0.5

    def check(self) -> None:
        if self.start == 1:
            raise ConfigError("start = 1 leaves no time to taper: use ConstantDecay")

    def matrix_scale(self, progress: Progress, budget: Budget) -> float:
        share = max(0.0, (fraction_done(progress, budget) - self.start) / (1.0 - self.start))
        return 1.0 - share * (1.0 - self.final)


@config
class DecayFollowsRate(WeightDecay):
    """Of every group: the learning rate's multiplier, so that what a step takes off a weight is quadratic in it.

    Source: the speedrun, record 43.
    """

    def scale(self, progress: Progress, budget: Budget, lr_scale: float) -> float:
        return lr_scale


@config
class Schedule(Config):
    """The schedules of a run."""

    learning_rate: LearningRate = field(default_factory=WarmdownSteps)
    momentum: MomentumWarmup = field(default_factory=MomentumWarmup)
    weight_decay: WeightDecay = field(default_factory=ConstantDecay)
    recurrence: Switch = field(default_factory=Always)
    """When the recurrent layers of the model run all their passes."""
    fake_quantise: Switch = field(default_factory=Always)
    """When the fake quantiser of the training, if there is one, is in the way of the matrices."""
    stages: StageTable | None = None
    """What changes by stage; None leaves batch, row length, windows and targets as loader and model have them."""

    def at(self, progress: Progress, budget: Budget) -> Settings:
        """The settings of the step that begins at `progress`."""
        scheduled, standing = budget, None
        if self.stages is not None:
            scheduled = self.stages.scheduled(budget)
            standing = self.stages.at(progress.step, fraction_done(progress, budget), budget)
        lr_scale = self.learning_rate.scale(progress, scheduled, standing.stage.lr_scale if standing else 1.0)
        settings = Settings(
            lr_scale=lr_scale,
            momentum=self.momentum.at(progress, budget),
            decay_scale=self.weight_decay.scale(progress, budget, lr_scale),
            matrix_decay_scale=self.weight_decay.matrix_scale(progress, budget),
            phase=Phase(
                looped=self.recurrence.is_on(progress, budget, lr_scale),
                quantised=self.fake_quantise.is_on(progress, budget, lr_scale),
            ),
            step=progress.step,
        )
        return settings if self.stages is None or standing is None else _staged(settings, self.stages, standing)

    def kinds(self, budget: Budget) -> tuple[Settings, ...]:
        """Settings of every kind that `at` can return, in the order of the stages, with the numbers of the first step.

        What has to be compiled before the clock starts.
        """
        start = self.at(Progress(0, 0, 0.0), budget)
        both = [Phase(looped, fake) for looped, fake in product(self.recurrence.states, self.fake_quantise.states)]
        plain = [replace(start, phase=phase) for phase in both]
        if self.stages is None:
            return tuple(plain)
        standings = [Standing(stage, 0.0) for stage in self.stages.rows]
        found = {made.kind: made for at in standings for made in (_staged(each, self.stages, at) for each in plain)}
        return tuple(found.values())


def _staged(settings: Settings, table: StageTable, standing: Standing) -> Settings:
    stage = standing.stage
    return replace(
        settings,
        phase=settings.phase._replace(windows=table.windows(stage)),
        shape=stage.shape,
        target_weights=stage.target_weights(standing.share),
        tied=stage.tied,
    )
