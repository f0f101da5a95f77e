"""The order of a forward pass, as data."""

from dataclasses import dataclass

from underpar.core.config import Config, config
from underpar.core.errors import ConfigError


@dataclass(frozen=True)
class Run:
    """Execute physical block `layer` on the stream."""

    layer: int


@dataclass(frozen=True)
class Push:
    """Save the stream on the stack."""


@dataclass(frozen=True)
class Pop:
    """Add what was saved last, through row `row` of the skip connections."""

    row: int


Step = Run | Push | Pop
LayerPlan = tuple[Step, ...]


class Topology(Config):
    """Says in which order the blocks of a model run, and what passes beside them."""

    def plan(self, num_layers: int) -> LayerPlan:
        raise NotImplementedError


@config
class Straight(Topology):
    """One block after another."""

    def plan(self, num_layers: int) -> LayerPlan:
        return tuple(Run(layer) for layer in range(num_layers))


@config
class UNet(Topology):
    """The first half of the blocks save their outputs; the second half take them back, last saved first.

    With an odd number of blocks the last one has no skip. Source: the stock trainer of the 16 MB game.
    """

    def plan(self, num_layers: int) -> LayerPlan:
        encoder = num_layers // 2
        steps: list[Step] = []
        for layer in range(encoder):
            steps += [Run(layer), Push()]
        for row, layer in enumerate(range(encoder, num_layers)):
            steps += [Pop(row), Run(layer)] if row < encoder else [Run(layer)]
        return tuple(steps)


def skip_rows(plan: LayerPlan) -> int:
    """Rows of skip weights that a plan uses."""
    return 1 + max((step.row for step in plan if isinstance(step, Pop)), default=-1)


def validate_plan(plan: LayerPlan, num_layers: int) -> None:
    """Raise ConfigError when a plan misses a layer, names one that is not there, or pops an empty stack."""
    missing = sorted(set(range(num_layers)) - {step.layer for step in plan if isinstance(step, Run)})
    if missing:
        raise ConfigError(f"the layer plan never runs layer {missing[0]} of {num_layers}")
    depth = 0
    for step in plan:
        match step:
            case Run(layer) if not 0 <= layer < num_layers:
                raise ConfigError(f"the layer plan runs layer {layer}, but there are {num_layers}")
            case Push():
                depth += 1
            case Pop():
                depth -= 1
                if depth < 0:
                    raise ConfigError("the layer plan takes a skip that was never saved")
