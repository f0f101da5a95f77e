"""How a run is trained, and what it came to."""

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from underpar.core.config import Config, NonNegativeInt, PositiveFloat, PositiveInt, config, field
from underpar.core.world import World

RAW, AVERAGED = "raw", "averaged"
"""Weights after the last step, and their average over training."""


class GradientScale(Config):
    """What the sum of a step's losses is divided by before gradients are taken."""

    def divisor(self, batch_tokens: int) -> float:
        raise NotImplementedError


@config
class MeanGradient(GradientScale):
    """The gradient of the mean loss: its size does not change with the batch."""

    def divisor(self, batch_tokens: int) -> float:
        return batch_tokens


@config
class SummedGradient(GradientScale):
    """A fixed share of the gradient of the summed loss, which grows with the batch.

    Rates of Adam and Muon do not see the scale, but their moments and momentum see it change between stages, and an epsilon of
    1e-10 is larger against a mean. Source: the speedrun, where eight processes average sums over their own tokens.
    """

    shares: PositiveInt = 8

    def divisor(self, batch_tokens: int) -> float:
        return self.shares


@config
class Training(Config):
    """How the loop runs; none of these is part of the method, but all can move a score a little."""

    micro_batch_tokens: PositiveInt = 262_144
    """Most tokens that one forward and backward takes on one device; more processes need fewer micro-batches."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Dtype of the activations; auto is bfloat16 on CUDA and float32 elsewhere. Master weights stay as declared."""
    gradient_scale: GradientScale = field(default_factory=MeanGradient)
    compile: bool = True
    """torch.compile on CUDA. On a CPU it costs more than a short run gains, and is off."""
    warmup_steps: NonNegativeInt = 20
    """Steps on random tokens before the clock starts, shared among the phases, after which all state is put back."""
    log_every_steps: PositiveInt = 10
    validate_every_steps: NonNegativeInt = 0
    """0 validates not before the end."""
    validate_at_end: bool = True
    """Score the finished weights before quantisation, outside the clock: the average, where there is one, and the last ones."""
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
    recompilations: int = 0
    """Graphs that were compiled while the clock ran; the warm-up should have met them all."""
    validation: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    """Loss and bpb before quantisation, of the "raw" weights and, where there is an average, of the "averaged" ones."""

    first_step_ms: float | None = None
    """Of this process, by the host's clock: what is paid once shows here."""
    reserved_memory_bytes: int | None = None

    @property
    def breakdown(self) -> dict[str, float]:
        """Where the time went, on and off the clock: seconds by the names of core/clock.py, training last."""
        return self.paused_seconds | {"train": round(self.train_seconds, 3)}

    @property
    def unquantised(self) -> dict[str, float] | None:
        """Loss and bpb before quantisation of the weights that are packed."""
        return self.validation.get(AVERAGED, self.validation.get(RAW))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"breakdown": self.breakdown}
