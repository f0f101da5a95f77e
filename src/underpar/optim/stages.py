"""A run in stages: batch, row length, windows, peak learning rate and prediction targets, each constant or linear in a stage.

The table is the only place where these are written down; loader, model and optimisers are handed what `StageTable.at` says.
Source: modded-nanogpt, records 39 to 72.
"""

from itertools import accumulate, pairwise
from typing import NamedTuple

from underpar.core.budget import Budget
from underpar.core.config import Config, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, config
from underpar.core.errors import ConfigError
from underpar.core.phase import StepShape, WindowSizes


@config
class Stage(Config):
    """What holds during one stretch of a run."""

    share: Fraction = 1.0
    """Of the scheduled part of the run; the shares of a table add up to one."""
    batch_tokens: PositiveInt = 131_072
    """Training tokens of one step, over all processes."""
    seq_len: PositiveInt = 2048
    """Most tokens of a document that are trained on; the rest of it is passed over."""
    short_window: PositiveInt = 1
    """Blocks that layers with a short window reach back."""
    long_window: PositiveInt = 3
    """The same for layers with a long window."""
    lr_scale: PositiveFloat = 1.0
    """Multiplies the learning rate before the cooldown takes over."""
    targets: tuple[NonNegativeFloat, ...] = (1.0,)
    """Weights of the next token, the one after it and so on, as the stage begins."""
    targets_end: tuple[NonNegativeFloat, ...] | None = None
    """The same as it ends, linear in between; None keeps them."""
    tied: bool = False
    """Whether embedding and head, two tables of the model, stay one; they part at their first update after such stages."""

    def check(self) -> None:
        if self.short_window > self.long_window:
            raise ConfigError(f"short_window = {self.short_window} blocks is over long_window = {self.long_window}")
        if not self.targets or not self.targets[0]:
            raise ConfigError(f"targets = {self.targets}: the next token needs a weight")
        if self.targets_end is not None and len(self.targets_end) != len(self.targets):
            raise ConfigError(
                f"targets has {len(self.targets)} weights and targets_end {len(self.targets_end)}; "
                "write a weight of 0 for a target that ends"
            )

    @property
    def shape(self) -> StepShape:
        return StepShape(self.batch_tokens, self.seq_len)

    def target_weights(self, share: float) -> tuple[float, ...]:
        """The weights when `share` of the stage is done."""
        return tuple(a + (b - a) * share for a, b in zip(self.targets, self.targets_end or self.targets, strict=True))


class Standing(NamedTuple):
    """Where a step lies in a table: the stage, and the share of it that is done."""

    stage: Stage
    share: float


@config
class StageTable(Config):
    """Stages one after another over the scheduled steps, and the last stage once more, changed, as an extension.

    Under a budget of steps the scheduled part is what the extension leaves; a stage begins at round(share before it * steps).
    Under a budget of seconds or tokens stages take their shares of the whole budget, and there is no extension.
    """

    stages: tuple[Stage, ...] = (Stage(),)
    extension: Stage | None = None
    extension_steps: NonNegativeInt = 0
    window_block: PositiveInt = 128
    """Tokens of a block, the unit of windows."""

    def check(self) -> None:
        total = sum(stage.share for stage in self.stages)
        if abs(total - 1.0) > 1e-6:
            what = "leave a gap of" if total < 1 else "overlap by"
            raise ConfigError(f"the shares of the stages {what} {abs(1 - total):.4g} of the run; they must add up to 1")
        if (self.extension is None) != (self.extension_steps == 0):
            raise ConfigError("extension and extension_steps belong together: set both or neither")
        for stage in self.rows:
            reach = self.windows(stage).long
            if reach > stage.seq_len:
                raise ConfigError(
                    f"long_window = {stage.long_window} blocks of {self.window_block} is {reach} tokens, over seq_len = "
                    f"{stage.seq_len}: no document is long enough to fill it"
                )
        tied = [stage.tied for stage in self.rows]
        if any(later and not before for before, later in pairwise(tied)):
            raise ConfigError(
                "a stage ties embedding and head after one that had them apart; tables are never merged again"
            )

    @property
    def rows(self) -> tuple[Stage, ...]:
        """All stages in order, the extension last."""
        return (*self.stages, *((self.extension,) if self.extension else ()))

    def windows(self, stage: Stage) -> WindowSizes:
        """Of a stage, in tokens."""
        return WindowSizes(stage.short_window * self.window_block, stage.long_window * self.window_block)

    def scheduled(self, budget: Budget) -> Budget:
        """The budget without the extension: what cooldowns count on."""
        if not self.extension_steps or budget.train_steps is None:
            return budget
        if budget.train_steps <= self.extension_steps:
            raise ConfigError(
                f"budget.train_steps = {budget.train_steps} leaves nothing beside an extension of {self.extension_steps} steps"
            )
        steps = budget.train_steps - self.extension_steps
        return Budget(train_steps=steps, train_seconds=budget.train_seconds, train_tokens=budget.train_tokens)

    def boundaries(self, steps: int) -> list[int]:
        """First step of each scheduled stage, and the end: `steps` counts the scheduled ones."""
        before = accumulate((stage.share for stage in self.stages[:-1]), initial=0.0)
        return [*(round(share * steps) for share in before), steps]

    def at(self, step: int, done: float, budget: Budget) -> Standing:
        """done: used share of the whole budget, which decides where there is no budget of steps."""
        if budget.train_steps is None:
            return self._at_share(done)
        steps = budget.train_steps - self.extension_steps
        starts = self.boundaries(steps)
        if step >= steps and self.extension is not None:
            return Standing(self.extension, min(1.0, (step - steps) / self.extension_steps))
        index = max(i for i, start in enumerate(starts[:-1]) if start <= step)
        first, last = starts[index], starts[index + 1]
        return Standing(self.stages[index], min(1.0, (step - first) / max(1, last - first)))

    def _at_share(self, done: float) -> Standing:
        ends = list(accumulate(stage.share for stage in self.stages))
        index = next((i for i, end in enumerate(ends) if done < end), len(ends) - 1)
        stage = self.stages[index]
        share = min(1.0, (done - ends[index] + stage.share) / stage.share) if stage.share else 1.0
        return Standing(stage, share)

    def long_windows(self) -> tuple[int, ...]:
        """The long windows that training goes through, in tokens and in order, each once in a row."""
        sizes = [self.windows(stage).long for stage in self.rows]
        return tuple(size for index, size in enumerate(sizes) if index == 0 or size != sizes[index - 1])
