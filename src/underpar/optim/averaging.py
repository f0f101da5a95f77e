"""Weight averaging: the weights that are packed need not be the last ones."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from underpar.core.config import Config, Fraction, PositiveInt, config
from underpar.optim.schedules import Settings


class Averaging(Config):
    """Which average of the weights over the steps is kept."""

    def build(self, params: Mapping[str, Tensor]) -> "WeightAverage":
        """The average of these parameters, beginning with their present values."""
        raise NotImplementedError


class WeightAverage(ABC):
    """An average of named parameters, in float32. Equal on every process, as the parameters are."""

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        self.names, self.params = list(params), [param.detach() for param in params.values()]
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Begin again from the parameters' present values: after warm-up has put them back."""

    @abstractmethod
    def update(self, step: int, settings: Settings) -> dict[str, float]:
        """Look at the parameters after `step` updates. Returns the settings that were consumed, for the effect trace."""

    @abstractmethod
    def averaged(self) -> dict[str, Tensor]:
        """The average by parameter name, each in its parameter's dtype."""

    @abstractmethod
    def state_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs."""

    @abstractmethod
    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_tensors` returned."""

    def _named(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.names, tensors, strict=True))

    def _as_stored(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        return self._named([t.to(p.dtype, copy=True) for t, p in zip(tensors, self.params, strict=True)])

    def _in_float32(self) -> list[Tensor]:
        return [param.float() for param in self.params]


@config
class EMA(Averaging):
    """average <- decay * average + (1 - decay) * weights after every step, from the initial weights, no bias correction.

    Source: the late line of the 16 MB game, golf PR #1530.
    """

    decay: Fraction = 0.9965

    def build(self, params: Mapping[str, Tensor]) -> "ExponentialAverage":
        return ExponentialAverage(params, self.decay)


class ExponentialAverage(WeightAverage):
    """See `EMA`."""

    def __init__(self, params: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        super().__init__(params)

    def reset(self) -> None:
        self.average = [weight.clone() for weight in self._in_float32()]

    @torch.no_grad()
    def update(self, step: int, settings: Settings) -> dict[str, float]:
        torch._foreach_lerp_(self.average, self._in_float32(), 1.0 - self.decay)
        return {"averaging.decay": self.decay}

    def averaged(self) -> dict[str, Tensor]:
        return self._as_stored(self.average)

    def state_tensors(self) -> dict[str, Tensor]:
        return {f"{name}.average": tensor for name, tensor in self._named(self.average).items()}

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self._named(self.average).items():
            tensor.copy_(state[f"{name}.average"])


@config
class SWA(Averaging):
    """The plain mean of snapshots, one every `every` steps while the learning rate's multiplier is below `start_below`.

    Fewer than two snapshots are no average: the last weights are kept then. PR #122 takes these defaults; the SWA50 record
    takes start_below=0.4, every=50. Sums are in float32, where those records add in the parameter's dtype.
    Source: arXiv:1803.05407, golf PR #122.
    """

    start_below: Fraction = 0.5
    every: PositiveInt = 200

    def build(self, params: Mapping[str, Tensor]) -> "SnapshotAverage":
        return SnapshotAverage(params, self)


class SnapshotAverage(WeightAverage):
    """See `SWA`."""

    def __init__(self, params: Mapping[str, Tensor], config: SWA) -> None:
        self.config = config
        super().__init__(params)

    def reset(self) -> None:
        self.snapshots = 0
        self.sums = [torch.zeros_like(param, dtype=torch.float32) for param in self.params]

    @torch.no_grad()
    def update(self, step: int, settings: Settings) -> dict[str, float]:
        if settings.lr_scale < self.config.start_below and step % self.config.every == 0:
            torch._foreach_add_(self.sums, self._in_float32())
            self.snapshots += 1
        return {"averaging.snapshots": float(self.snapshots)}

    def averaged(self) -> dict[str, Tensor]:
        if self.snapshots < 2:
            return self._as_stored(self.params)
        return self._as_stored([total / self.snapshots for total in self.sums])

    def state_tensors(self) -> dict[str, Tensor]:
        found = {f"{name}.sum": tensor for name, tensor in self._named(self.sums).items()}
        return found | {"snapshots": torch.tensor(self.snapshots)}

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        self.snapshots = int(state["snapshots"])
        for name, tensor in self._named(self.sums).items():
            tensor.copy_(state[f"{name}.sum"])
