"""The byte budget as the only setting: weights quantised as finely as an artifact of so many bytes allows."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from underpar.compress.codecs import Codec
from underpar.compress.encoded import Encoded
from underpar.compress.precision import Float16, Gptq, IntRows, Precision
from underpar.compress.quantise import Hessians, NamedTensors, Quantiser, checked, encode_each, hessian_of
from underpar.compress.rounding import Rounding, Trellis
from underpar.compress.waterfill import Prepared, prepare
from underpar.compress.writer import ArtifactInfo, build_artifact
from underpar.core.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, config, field
from underpar.core.errors import ArtifactError
from underpar.core.roles import Role

TOLERANCE = 1e-3
"""Share of the budget that may stay empty."""
MAX_TRIES = 12
FINEST, COARSEST = -48.0, 16.0
"""log2 of the step: far beyond what any model needs on either side."""


@config
class Waterfill(Quantiser):
    """Every matrix as fine as its influence on the loss deserves: one step for the whole model, see `compress.waterfill`.

    Matrices, embedding and head need Hessians, with the derivatives by outputs for all of them or for none. Gates of 32
    elements and more are int8 rows; gains, and what has at most `passthrough_elements`, fp16.
    """

    step: PositiveFloat | None = None
    """The loss, in nats, that the error of one weight may cost is step^2 / 24. None: whatever fills the byte budget."""
    rounding: Rounding = field(default_factory=Trellis)
    """`Trellis` takes 3 to 5 % fewer bytes for the same error than `Nearest`, and some seconds."""
    damping: PositiveFloat = 0.01
    gradient_floor: NonNegativeFloat = 0.3
    passthrough_elements: NonNegativeInt = 4_096

    @property
    def label(self) -> str:
        return "grid"

    @property
    def needs_hessians(self) -> bool:
        return True

    def encode_all(self, tensors: NamedTensors, hessians: Hessians | None) -> list[Encoded]:
        if self.step is None:
            raise ArtifactError("Waterfill without a step fills a byte budget, and there is none; give it a step")
        return Filling(tensors, self, hessians).encode(self.step)

    def is_filled(self, tensor: torch.Tensor, role: Role) -> bool:
        """Whether a tensor is one of those that share the step."""
        is_large = tensor.ndim == 2 and tensor.numel() > self.passthrough_elements
        return tensor.is_floating_point() and is_large and role in (Role.MATRIX, Role.EMBEDDING, Role.HEAD)

    def precision_of(self, name: str, tensor: torch.Tensor, role: Role) -> Precision:
        """Of the tensors that do not share the step. For the others what a prediction of sizes takes: six bits."""
        if self.is_filled(tensor, role):
            return Gptq(bits=6)
        return IntRows() if role is Role.GATE and tensor.ndim == 2 and tensor.numel() >= 32 else Float16()


class Filling:
    """Weights prepared for any step."""

    def __init__(self, tensors: NamedTensors, quantiser: Waterfill, hessians: Hessians | None) -> None:
        self.names, self.rounding = list(tensors), quantiser.rounding
        filled = {name: item for name, item in tensors.items() if quantiser.is_filled(*item)}
        rest = {name: item for name, item in tensors.items() if name not in filled}
        self.rest = {item.name: item for item in encode_each(rest, quantiser, None)}
        found = {name: hessian_of(name, tensor, hessians) for name, (tensor, _) in filled.items()}
        if len({hessian.output_gradient is None for hessian in found.values()}) > 1:
            lacking = next(name for name, hessian in found.items() if hessian.output_gradient is None)
            raise ArtifactError(
                f"the Hessian of {lacking!r} lacks the output gradients that others have; record all or none"
            )
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name, (tensor, _) in filled.items():
            shapes.setdefault(tuple(tensor.shape), []).append(name)
        self.prepared: list[Prepared] = [
            prepare(
                names,
                [checked(name, filled[name][0]) for name in names],
                [filled[name][1] for name in names],
                [found[name] for name in names],
                damping=quantiser.damping,
                gradient_floor=quantiser.gradient_floor,
                tokens=min(hessian.tokens for hessian in found.values()),
            )
            for names in shapes.values()
        ]

    def encode(self, step: float) -> list[Encoded]:
        """Every tensor, in the order given."""
        done = self.rest | {item.name: item for group in self.prepared for item in group.encode(step, self.rounding)}
        return [done[name] for name in self.names]

    @property
    def params(self) -> int:
        """Weights that share the step."""
        return sum(group.scaled.numel() for group in self.prepared)

    def estimated_bytes(self, log_step: float) -> float:
        """Entropy of the filled matrices if each code is Gaussian with the variance that its row and column have together."""
        return sum(group.estimated_bits(2.0**log_step) for group in self.prepared) / 8


def fill_budget(
    tensors: NamedTensors,
    quantiser: Waterfill,
    hessians: Hessians | None,
    header: Mapping[str, Any],
    codec: Codec,
    limit_bytes: int,
) -> tuple[float, list[Encoded], bytes, ArtifactInfo]:
    """The finest step whose container has at most `limit_bytes`, with at most TOLERANCE of them empty, and that container.

    Raises: ArtifactError when even the coarsest step is too large, or as `prepare` does.
    Cost: three to five times quantising and coding; the Hessians are factored once.
    """
    filling = Filling(tensors, quantiser, hessians)
    best: tuple[float, list[Encoded], bytes, ArtifactInfo] | None = None

    def measure(log_step: float) -> int:
        nonlocal best
        encoded = filling.encode(2.0**log_step)
        data, info = build_artifact(header, encoded, codec)
        if len(data) <= limit_bytes and (best is None or len(data) > len(best[2])):
            best = (2.0**log_step, encoded, data, info)
        return len(data)

    _search(measure, filling.estimated_bytes, limit_bytes, filling.params / 8)
    if best is None:
        raise ArtifactError(
            f"no step brings the container under {limit_bytes:,} bytes: the parts that share no step and the table take too "
            f"many; shrink the model, or raise passthrough_elements"
        )
    return best


def _search(measure: Callable[[float], int], estimate: Callable[[float], float], limit: int, slope: float) -> None:
    """Call `measure` with log2 steps until its bytes are within TOLERANCE under `limit`. slope: bytes an octave costs."""
    target = limit * (1 - TOLERANCE / 2)
    at = _solve(estimate, target)
    too_fine, too_coarse = FINEST, COARSEST
    for _ in range(MAX_TRIES):
        size = measure(at)
        if limit * (1 - TOLERANCE) <= size <= limit:
            return
        if size > limit:
            too_fine = at
        else:
            too_coarse = at
        # The estimate is off by nearly the same everywhere near: move by what it says of the rest.
        wanted = estimate(at) + target - size
        at = _solve(estimate, wanted) if wanted > 0 else at + max(0.25, (size - target) / slope)
        if not too_fine < at < too_coarse:
            at = (too_fine + too_coarse) / 2
        if too_coarse - too_fine < 1e-4:
            return


def _solve(estimate: Callable[[float], float], target: float) -> float:
    """The log2 step whose estimate is `target`, by bisection: the estimate falls with the step."""
    fine, coarse = FINEST, COARSEST
    while coarse - fine > 1e-3:
        middle = (fine + coarse) / 2
        if estimate(middle) > target:
            fine = middle
        else:
            coarse = middle
    return coarse
