"""The order of a forward pass, as data."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from underpar.core.config import Config, NonNegativeInt, Range, config
from underpar.core.errors import ConfigError


@dataclass(frozen=True)
class Run:
    """Execute physical block `layer` on the stream; on two lanes, attention reads the first and the MLP the second."""

    layer: int
    pass_number: int = 0
    """How often the layer ran before in this forward pass."""


@dataclass(frozen=True)
class Push:
    """Save the stream on the stack."""


@dataclass(frozen=True)
class Pop:
    """Take back what was saved last, through row `row` of the skips; on two lanes, into the first."""

    row: int


@dataclass(frozen=True)
class Fork:
    """From here on there are two lanes, equal at first."""


@dataclass(frozen=True)
class Join:
    """The lanes become one stream again: `first` of the first and the rest of the second."""

    first: float


@dataclass(frozen=True)
class Backout:
    """Take back what was saved last, and subtract a share of it."""


Step = Run | Push | Pop | Fork | Join | Backout
LayerPlan = tuple[Step, ...]


class Topology(Config):
    """Says in which order the blocks of a model run, and what passes beside them."""

    def plan(self, num_layers: int, looped: bool = True) -> LayerPlan:
        """The plan of a forward pass; with `looped` off, recurrent layers run once."""
        raise NotImplementedError


@config
class Straight(Topology):
    """One block after another."""

    def plan(self, num_layers: int, looped: bool = True) -> LayerPlan:
        return tuple(Run(layer) for layer in range(num_layers))


@config
class SkipAndBackout(Topology):
    """One block after another; what block `save` puts out is added before block `add`, and a share of what block `backout` puts
    out is taken off at the end. Source: modded-nanogpt, records 40 to 72.
    """

    save: NonNegativeInt = 3
    add: NonNegativeInt = 6
    backout: NonNegativeInt = 7

    def check(self) -> None:
        if not self.save < self.add <= self.backout:
            raise ConfigError(
                f"save = {self.save}, add = {self.add} and backout = {self.backout} must be in this order, save before add"
            )

    def plan(self, num_layers: int, looped: bool = True) -> LayerPlan:
        if self.backout >= num_layers:
            raise ConfigError(f"backout = {self.backout}, but the last of {num_layers} layers is {num_layers - 1}")
        steps: list[Step] = []
        for layer in range(num_layers):
            steps += [Pop(0), Run(layer)] if layer == self.add else [Run(layer)]
            steps += [Push()] if layer in (self.save, self.backout) else []
        return (*steps, Backout())


@config
class Recurrence(Config):
    """Layers `first` to `last` run `passes` times in a row, with the same weights. Source: golf PR #1344, #1530 line."""

    first: NonNegativeInt = 3
    last: NonNegativeInt = 5
    passes: Annotated[int, Range(at_least=2, at_most=64)] = 3

    def check(self) -> None:
        if self.last < self.first:
            raise ConfigError(f"last = {self.last} is before first = {self.first}")


@config
class Lanes(Config):
    """From layer `first` of the second half on, attention and MLP work side by side on two residual lanes.

    Source: golf PR #1530 line ("parallel residuals").
    """

    first: NonNegativeInt = 8
    output: Literal["mean", "attention", "mlp"] = "mean"
    """What the head reads: the mean of the lanes, or the one that attention or the MLP reads."""


@config
class UNet(Topology):
    """The first half of the executions save their outputs; the second half take them back, last saved first.

    With an odd number the last has no skip. Skip rows are counted from the middle outwards, so that without its recurrence a
    model uses the first rows for other pairs of layers. Source: the stock trainer of the 16 MB game; recurrence and lanes from
    the line of golf PR #1530.
    """

    recurrence: Recurrence | None = None
    lanes: Lanes | None = None

    def plan(self, num_layers: int, looped: bool = True) -> LayerPlan:
        runs = list(self._executions(num_layers, looped))
        half = len(runs) // 2
        steps: list[Step] = []
        for run in runs[:half]:
            steps += [run, Push()]
        forked = False
        for row, run in enumerate(runs[half:]):
            if self.lanes and run.layer >= self.lanes.first and not forked:
                steps.append(Fork())
                forked = True
            steps += [Pop(row), run] if row < half else [run]
        if self.lanes and forked:
            steps.append(Join({"mean": 0.5, "attention": 1.0, "mlp": 0.0}[self.lanes.output]))
        return tuple(steps)

    def _executions(self, num_layers: int, looped: bool) -> Iterator[Run]:
        loop = self.recurrence
        if loop and loop.last >= num_layers:
            raise ConfigError(f"recurrence.last = {loop.last}, but the last of {num_layers} layers is {num_layers - 1}")
        if self.lanes and self.lanes.first >= num_layers:
            raise ConfigError(
                f"lanes.first = {self.lanes.first}, but the last of {num_layers} layers is {num_layers - 1}"
            )
        for layer in range(num_layers):
            if loop is None or not looped or not loop.first <= layer <= loop.last:
                yield Run(layer)
            elif layer == loop.first:
                for number in range(loop.passes):
                    yield from (Run(inner, number) for inner in range(loop.first, loop.last + 1))


def executions(plan: LayerPlan) -> list[int]:
    """The physical layer of each execution, in order."""
    return [step.layer for step in plan if isinstance(step, Run)]


def recurrent_layers(plan: LayerPlan) -> list[int]:
    """The physical layers that run more than once, in order."""
    return sorted({step.layer for step in plan if isinstance(step, Run) and step.pass_number})


def skip_rows(plan: LayerPlan) -> int:
    """Rows of skip weights that a plan uses."""
    return 1 + max((step.row for step in plan if isinstance(step, Pop)), default=-1)


def validate_plan(plan: LayerPlan, num_layers: int) -> None:
    """Raise ConfigError when a plan misses a layer, names one that is not there, or pops an empty stack."""
    missing = sorted(set(range(num_layers)) - set(executions(plan)))
    if missing:
        raise ConfigError(f"the layer plan never runs layer {missing[0]} of {num_layers}")
    depth = 0
    for step in plan:
        match step:
            case Run(layer) if not 0 <= layer < num_layers:
                raise ConfigError(f"the layer plan runs layer {layer}, but there are {num_layers}")
            case Push():
                depth += 1
            case Pop() | Backout():
                depth -= 1
                if depth < 0:
                    raise ConfigError("the layer plan takes a skip that was never saved")
    marks = [type(step) for step in plan if isinstance(step, Fork | Join)]
    if len(marks) % 2 or any(mark is not (Fork, Join)[i % 2] for i, mark in enumerate(marks)):
        raise ConfigError("the layer plan must fork before it joins, and join as often as it forks")
