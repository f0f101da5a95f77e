"""Mixed precision by rules: the first that fits a tensor decides."""

from collections.abc import Mapping
from typing import Literal

import torch

from underpar.compress.encoded import Encoded
from underpar.compress.lowrank import Correction, NoCorrection
from underpar.compress.precision import Float16, Float32, Precision
from underpar.compress.quantise import NamedTensors, Quantiser
from underpar.core.config import Config, NonNegativeInt, config, field
from underpar.core.errors import ArtifactError, suggest
from underpar.core.roles import Role


@config
class Rule(Config):
    """Tensors that fit all that is said here get `precision`; what is left open fits any."""

    precision: Precision
    role: Literal["matrix", "embedding", "head", "gain", "gate"] | None = None
    component: str | None = None
    """A whole component of the dotted name: "mlp" fits "blocks.3.mlp.up.weight", and nothing that merely contains it. One that
    no tensor has is an error, so that a rename cannot quietly change what is stored."""
    at_least_elements: NonNegativeInt = 0
    at_most_elements: NonNegativeInt | None = None

    def fits(self, name: str, tensor: torch.Tensor, role: Role) -> bool:
        return (
            (self.role is None or role == self.role)
            and (self.component is None or self.component in name.split("."))
            and tensor.numel() >= self.at_least_elements
            and (self.at_most_elements is None or tensor.numel() <= self.at_most_elements)
        )


@config
class ByRule(Quantiser):
    """Rules in order; tensors of fewer than two dimensions, and gains that no rule names by role, are kept as floats.

    The late recipes of the 16 MB game: gates of 32 to 8,192 elements as int8 rows; everything else up to 65,536 elements in
    fp16; GPTQ for the embedding (7 bits) and the matrices (6 bits), with clips by component.
    """

    rules: tuple[Rule, ...] = ()
    gain: Precision = field(default_factory=Float32)
    correction: Correction = field(default_factory=NoCorrection)

    @property
    def label(self) -> str:
        widths = [rule.precision.bits for rule in self.rules if hasattr(rule.precision, "bits") and rule.role != "gate"]
        return f"int{min(widths)}" if widths else "float16"

    @property
    def needs_hessians(self) -> bool:
        return any(rule.precision.needs_hessian for rule in self.rules)

    def check_names(self, tensors: NamedTensors) -> None:
        components = {part for name in tensors for part in name.split(".")}
        for rule in self.rules:
            if rule.component is not None and rule.component not in components:
                raise ArtifactError(
                    f"a rule speaks of {rule.component!r}, which no tensor's name has as a component; "
                    f"{suggest(rule.component, components)}"
                )

    def precision_of(self, name: str, tensor: torch.Tensor, role: Role) -> Precision:
        if role is Role.GAIN and not any(rule.role == role and rule.fits(name, tensor, role) for rule in self.rules):
            return self.gain
        if tensor.ndim < 2:
            return Float16()
        for rule in self.rules:
            if rule.fits(name, tensor, role):
                return rule.precision
        raise ArtifactError(
            f"no rule fits tensor {name!r} ({role}, {tensor.numel():,} elements); end the rules with Rule(precision=...)"
        )

    def correct(self, encoded: list[Encoded], tensors: Mapping[str, torch.Tensor]) -> list[Encoded]:
        return self.correction.apply(encoded, tensors)
