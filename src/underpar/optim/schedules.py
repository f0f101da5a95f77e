"""Every setting that changes during training, as a pure function of progress.

`Schedule.at(progress)` is the only place where learning rate and momentum come from; nothing else reads them. Progress can be
bounded by steps, tokens, seconds, or several at once: the bound that ends the run first decides.
"""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar, NamedTuple

from underpar.core.budget import Budget
from underpar.core.config import Config, Fraction, NonNegativeInt, PositiveInt, config, field
from underpar.core.errors import ConfigError
from underpar.core.phase import EVALUATION, Phase


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
    phase: Phase = EVALUATION
    """What the forward pass does."""
    step: int = 0
    """Optimiser steps done before this one."""
    tied: bool = False
    """Whether embedding and head, two tables of the model, are to stay one."""


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

    def scale(self, progress: Progress, budget: Budget) -> float:
        raise NotImplementedError


@config
class ConstantRate(LearningRate):
    """1 throughout."""

    def scale(self, progress: Progress, budget: Budget) -> float:
        return 1.0


@config
class WarmdownSteps(LearningRate):
    """1, then linear to 0 over the last `steps` steps. Under a time limit the end is foreseen from the average step time.

    Source: the stock trainer of the 16 MB game.
    """

    steps: PositiveInt = 1200

    def scale(self, progress: Progress, budget: Budget) -> float:
        return min(1.0, remaining_steps(progress, budget) / self.steps)


@config
class WarmdownFraction(LearningRate):
    """1, then linear over the last `fraction` of the budget, never below `floor`. Source: golf PR #1530 line."""

    fraction: Fraction = 0.75
    floor: Fraction = 0.0

    def check(self) -> None:
        if self.fraction == 0:
            raise ConfigError("fraction = 0: use ConstantRate for no warm-down")

    def scale(self, progress: Progress, budget: Budget) -> float:
        left = 1.0 - fraction_done(progress, budget)
        return min(1.0, max(left / self.fraction, self.floor))


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
    """The multiplier of every group's weight decay."""

    def scale(self, progress: Progress, budget: Budget, lr_scale: float) -> float:
        raise NotImplementedError


@config
class ConstantDecay(WeightDecay):
    """1 throughout."""

    def scale(self, progress: Progress, budget: Budget, lr_scale: float) -> float:
        return 1.0


@config
class DecayTaper(WeightDecay):
    """1, then linear from 1 to `final` between the fraction `start` of the budget and its end. Source: golf PR #1729."""

    start: Fraction = 0.70
    final: Fraction = 0.5

    def check(self) -> None:
        if self.start == 1:
            raise ConfigError("start = 1 leaves no time to taper: use ConstantDecay")

    def scale(self, progress: Progress, budget: Budget, lr_scale: float) -> float:
        share = max(0.0, (fraction_done(progress, budget) - self.start) / (1.0 - self.start))
        return 1.0 - share * (1.0 - self.final)


@config
class DecayFollowsRate(WeightDecay):
    """The learning rate's multiplier: what a step takes off a weight is quadratic in it. Source: the speedrun, record 43."""

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

    def at(self, progress: Progress, budget: Budget) -> Settings:
        """The settings of the step that begins at `progress`."""
        lr_scale = self.learning_rate.scale(progress, budget)
        return Settings(
            lr_scale=lr_scale,
            momentum=self.momentum.at(progress, budget),
            decay_scale=self.weight_decay.scale(progress, budget, lr_scale),
            phase=Phase(
                looped=self.recurrence.is_on(progress, budget, lr_scale),
                quantised=self.fake_quantise.is_on(progress, budget, lr_scale),
            ),
            step=progress.step,
        )

    def phases(self) -> tuple[Phase, ...]:
        """Every phase that `at` can return: what has to be compiled before the clock starts."""
        return tuple(Phase(*both) for both in product(self.recurrence.states, self.fake_quantise.states))
