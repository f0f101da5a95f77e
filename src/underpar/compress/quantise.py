"""Quantisers: named tensors with roles become encoded tensors.

Codes stay one to a byte whatever their width: an entropy coder reaches the entropy of small integers by itself, and
packed bits only hide the symbols from it.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated

import torch

from underpar.compress.clips import AmaxClip, BestQuantileClip, Clip, QuantileClip, SdClip, row_quantile
from underpar.compress.encoded import Encoded, decode
from underpar.compress.gptq import Hessian
from underpar.compress.precision import (
    Float16,
    Float32,
    Gptq,
    IntRows,
    Precision,
    half,
    keep,
    round_to_codes,
    scaled,
)
from underpar.core.config import Config, Fraction, NonNegativeInt, Range, config, field
from underpar.core.errors import ArtifactError
from underpar.core.roles import Role

__all__ = [
    "AmaxClip",
    "BestQuantileClip",
    "Clip",
    "Float16",
    "Float32",
    "Gptq",
    "Hessian",
    "Int8PerRow",
    "IntRows",
    "NamedTensors",
    "Precision",
    "QuantileClip",
    "Quantiser",
    "RoundToNearest",
    "SdClip",
    "dequantise",
    "keep",
    "quantise",
    "row_quantile",
]

NamedTensors = Mapping[str, tuple[torch.Tensor, Role]]
"""What is packed: name -> (tensor, role)."""
Hessians = Mapping[str, Hessian]
"""What calibration saw, by the name of the weight; only some weights have one."""


class Quantiser(Config):
    """Base of the quantisers: which precision each tensor gets."""

    @property
    def label(self) -> str:
        """The word that published log lines use: 'int8'."""
        raise NotImplementedError

    @property
    def needs_hessians(self) -> bool:
        """Whether `quantise` wants Hessians of any weight."""
        return False

    def precision_of(self, name: str, tensor: torch.Tensor, role: Role) -> Precision:
        """How a tensor of floats is stored."""
        raise NotImplementedError

    def check_names(self, tensors: NamedTensors) -> None:
        """Raise ArtifactError when something that the quantiser speaks of does not exist."""

    def correct(self, encoded: list[Encoded], tensors: Mapping[str, torch.Tensor]) -> list[Encoded]:
        """The encoded tensors with corrections of their errors, where the quantiser stores any."""
        return encoded

    def encode_all(self, tensors: NamedTensors, hessians: Hessians | None) -> list[Encoded]:
        """Every tensor, in the order given; each by its own precision unless a quantiser decides for all together."""
        return encode_each(tensors, self, hessians)


def quantise(tensors: NamedTensors, quantiser: Quantiser, hessians: Hessians | None = None) -> list[Encoded]:
    """Every tensor encoded, in the order given.

    Args:
        tensors: name -> (tensor, role), any device. hessians: name -> what calibration saw, for the weights that the
        quantiser treats by it; they decide the device of that work.
    Raises: ArtifactError naming the first tensor that has non-finite values, does not fit its storage type, or lacks a
        Hessian. Deterministic on one device.
    """
    quantiser.check_names(tensors)
    return quantiser.encode_all(tensors, hessians)


def encode_each(tensors: NamedTensors, quantiser: Quantiser, hessians: Hessians | None) -> list[Encoded]:
    """Every tensor by the precision that the quantiser has for it; those that need Hessians by shape together."""
    plain = {name: checked(name, tensor) for name, (tensor, _) in tensors.items()}
    roles = {name: role for name, (_, role) in tensors.items()}
    done: dict[str, Encoded] = {}
    together: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    chosen: dict[str, Precision] = {}
    for name, tensor in plain.items():
        if not tensor.is_floating_point():
            done[name] = keep(name, tensor, roles[name], tensor.dtype)
            continue
        chosen[name] = quantiser.precision_of(name, tensor, roles[name])
        if chosen[name].needs_hessian:
            together.setdefault((str(chosen[name]), tuple(tensor.shape)), []).append(name)
        else:
            done[name] = chosen[name].encode(name, tensor, roles[name])
    for names in together.values():
        found = [hessian_of(name, plain[name], hessians) for name in names]
        precision = chosen[names[0]]
        items = precision.encode_together(names, [plain[n] for n in names], [roles[n] for n in names], found)
        done |= {item.name: item for item in items}
    return quantiser.correct([done[name] for name in tensors], plain)


def checked(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the CPU, contiguous and detached. Raises ArtifactError when it has non-finite values."""
    plain = tensor.detach().cpu().contiguous()
    if plain.is_floating_point() and not bool(torch.isfinite(plain).all()):
        bad = int((~torch.isfinite(plain)).sum())
        raise ArtifactError(f"tensor {name!r} has {bad:,} non-finite of {plain.numel():,} values; it cannot be packed")
    return plain


def hessian_of(name: str, tensor: torch.Tensor, hessians: Hessians | None) -> Hessian:
    """What calibration saw of a weight. Raises ArtifactError when that is nothing, or does not fit it."""
    if hessians is None or name not in hessians:
        raise ArtifactError(
            f"tensor {name!r} is to be quantised by its Hessian, and there is none; calibrate first, or choose IntRows"
        )
    found = hessians[name]
    if tensor.ndim != 2 or tuple(found.gram.shape) != (tensor.shape[1],) * 2:
        raise ArtifactError(
            f"tensor {name!r} of shape {list(tensor.shape)} has a Hessian of shape {list(found.gram.shape)}; "
            f"a matrix (out, in) needs (in, in)"
        )
    if not bool(torch.isfinite(found.gram).all()):
        raise ArtifactError(f"the Hessian of {name!r} has non-finite values; calibrate again")
    return found


def dequantise(encoded: Iterable[Encoded]) -> dict[str, torch.Tensor]:
    """The tensors that a reader of the artifact will get, in their recorded dtypes."""
    return {item.name: decode(item) for item in encoded}


@config
class Int8PerRow(Quantiser):
    """The int8 export of the first published recipes: 127 codes a side, a clip and a scale for each row of a matrix.

    Tensors of at most `passthrough_elements` are kept: gains in fp32, the others in fp16 with their own dtype
    recorded. The scale has a floor of 1/127, so a row whose largest magnitude is below 1 gets coarser steps (and
    smaller codes) than it could have: kept because it is part of the published result. Weights are divided by the
    fp32 scale, the scale is stored in fp16.
    """

    quantile: Fraction = 0.9999984
    passthrough_elements: NonNegativeInt = 65_536

    @property
    def label(self) -> str:
        return "int8"

    def precision_of(self, name: str, tensor: torch.Tensor, role: Role) -> Precision:
        if role is Role.GAIN:
            return Float32()
        return Float16() if tensor.numel() <= self.passthrough_elements else PublishedInt8(quantile=self.quantile)


@config
class PublishedInt8(Precision):
    """The rows of `Int8PerRow`; tensors of other than two dimensions get one fp32 scale."""

    quantile: Fraction = 0.9999984

    def encode(self, name: str, tensor: torch.Tensor, role: Role) -> Encoded:
        wide = tensor.float()
        if tensor.ndim != 2:
            limit = row_quantile(wide.reshape(1, -1).abs(), self.quantile)
            scale = torch.where(limit > 0, limit / 127, 1.0)
            codes = round_to_codes(wide.reshape(1, -1), scale, limit, 127).reshape(tensor.shape)
            return scaled(name, tensor, role, codes, scale.reshape(()), 127)
        limit = row_quantile(wide.abs(), self.quantile)
        scale = (limit / 127).clamp_min(1 / 127)
        return scaled(name, tensor, role, round_to_codes(wide, scale, limit, 127), half(name, scale), 127)


@config
class RoundToNearest(Quantiser):
    """Plain rounding: `bits` and `clip` for every weight, with a precision of its own for any role that has one.

    One-dimensional tensors and tensors of at most `passthrough_elements` are kept in fp16, gains always in fp32.
    """

    bits: Annotated[int, Range(at_least=2, at_most=8)] = 8
    clip: Clip = field(default_factory=AmaxClip)
    matrix: Precision | None = None
    """None: `bits` and `clip`. So for the roles below."""
    embedding: Precision | None = None
    head: Precision | None = None
    gate: Precision | None = None
    passthrough_elements: NonNegativeInt = 1_024

    @property
    def label(self) -> str:
        return f"int{self.bits}"

    @property
    def needs_hessians(self) -> bool:
        return any(p is not None and p.needs_hessian for p in (self.matrix, self.embedding, self.head, self.gate))

    def precision_of(self, name: str, tensor: torch.Tensor, role: Role) -> Precision:
        chosen = {Role.MATRIX: self.matrix, Role.EMBEDDING: self.embedding, Role.HEAD: self.head, Role.GATE: self.gate}
        if role is Role.GAIN:
            return Float32()
        if role not in chosen:
            raise ArtifactError(
                f"RoundToNearest has no precision for the role {role!r}; valid: {', '.join(chosen)}, gain"
            )
        if tensor.ndim < 2 or tensor.numel() <= self.passthrough_elements:
            return Float16()
        return chosen[role] or IntRows(bits=self.bits, clip=self.clip)
