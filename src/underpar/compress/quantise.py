"""Quantisers: named tensors with roles become encoded tensors. Role and size decide the treatment, never the name.

Codes stay one to a byte whatever their width: an entropy coder reaches the entropy of small integers by itself, and
packed bits only hide the symbols from it.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated

import torch

from underpar.compress.encoded import Encoded, decode, dtype_name
from underpar.core.config import (
    Config,
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    Range,
    config,
    field,
)
from underpar.core.errors import ArtifactError
from underpar.core.roles import Role

NamedTensors = Mapping[str, tuple[torch.Tensor, Role]]
"""What is packed: name -> (tensor, role)."""

ROWS_AT_ONCE = 1 << 22
"""Elements whose order statistics are found in one go; bounds the scratch memory."""


class Quantiser(Config):
    """Base of the quantisers."""

    @property
    def label(self) -> str:
        """The word that published log lines use: 'int8'."""
        raise NotImplementedError

    def encode(self, name: str, tensor: torch.Tensor, role: Role) -> Encoded:
        """One tensor, on the CPU and detached."""
        raise NotImplementedError


def quantise(tensors: NamedTensors, quantiser: Quantiser) -> list[Encoded]:
    """Every tensor encoded, in the order given.

    Raises ArtifactError naming the first tensor that has non-finite values or does not fit its storage type.
    Deterministic.
    """
    encoded = []
    for name, (tensor, role) in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.is_floating_point() and not bool(torch.isfinite(plain).all()):
            bad = int((~torch.isfinite(plain)).sum())
            raise ArtifactError(
                f"tensor {name!r} has {bad:,} non-finite of {plain.numel():,} values; it cannot be packed"
            )
        encoded.append(quantiser.encode(name, plain, role))
    return encoded


def dequantise(encoded: Iterable[Encoded]) -> dict[str, torch.Tensor]:
    """The tensors that a reader of the artifact will get, in their recorded dtypes."""
    return {item.name: decode(item) for item in encoded}


# ------------------------------------------------------------------------------------------------- clipping


class Clip(Config):
    """Base: the magnitude that the largest code stands for, per row."""

    def limit(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, cols) fp32 -> (rows,) fp32."""
        raise NotImplementedError


@config
class AmaxClip(Clip):
    """The largest magnitude of the row: nothing is clipped."""

    def limit(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.abs().amax(1)


@config
class QuantileClip(Clip):
    """A quantile of the magnitudes, linearly interpolated."""

    quantile: Fraction = 0.9999984

    def limit(self, rows: torch.Tensor) -> torch.Tensor:
        return row_quantile(rows.abs(), self.quantile)


@config
class SdClip(Clip):
    """A multiple of the row's standard deviation (SDClip): a wide clip at more bits codes as small as fewer bits do.

    The coded size falls by log2 of the factor by which `sigmas` grows; typical 11 to 15. A row of one element uses
    its magnitude.
    """

    sigmas: PositiveFloat = 12.85

    def limit(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.std(1) * self.sigmas if rows.shape[1] > 1 else rows.abs().amax(1)


def row_quantile(rows: torch.Tensor, quantile: float) -> torch.Tensor:
    """`torch.quantile(rows, quantile, dim=1)` bit for bit, without its limit of 2^24 elements; seldom sorts whole rows."""
    count = rows.shape[1]
    rank = torch.tensor(quantile, dtype=rows.dtype) * (count - 1)  # in the dtype of the rows, as torch computes it
    below = int(rank)
    weight = rank - below
    chunks = []
    for chunk in rows.split(max(1, ROWS_AT_ONCE // count)):
        if count - below <= 64:
            top = chunk.topk(count - below, dim=1).values
            lower, upper = top[:, -1], top[:, max(-2, -top.shape[1])]
        else:
            ordered = chunk.sort(dim=1).values
            lower, upper = ordered[:, below], ordered[:, below + 1]
        chunks.append(torch.lerp(lower, upper, weight))
    return torch.cat(chunks)


# ------------------------------------------------------------------------------------------------- the published int8


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

    def encode(self, name: str, tensor: torch.Tensor, role: Role) -> Encoded:
        if not tensor.is_floating_point():
            return keep(name, tensor, role, tensor.dtype)
        if role is Role.GAIN:
            return keep(name, tensor, role, torch.float32)
        if tensor.numel() <= self.passthrough_elements:
            return keep(name, tensor, role, torch.float16)
        wide = tensor.float()
        if tensor.ndim != 2:
            limit = row_quantile(wide.reshape(1, -1).abs(), self.quantile)
            scale = torch.where(limit > 0, limit / 127, 1.0)
            codes = round_to_codes(wide.reshape(1, -1), scale, limit, 127).reshape(tensor.shape)
            return scaled(name, tensor, role, codes, scale.reshape(()), 127)
        limit = row_quantile(wide.abs(), self.quantile)
        scale = (limit / 127).clamp_min(1 / 127)
        return scaled(name, tensor, role, round_to_codes(wide, scale, limit, 127), _half(name, scale), 127)


# ------------------------------------------------------------------------------------------------- round to nearest


class Precision(Config):
    """Base: how the tensors of one role are stored."""

    def encode(self, name: str, tensor: torch.Tensor, role: Role) -> Encoded:
        raise NotImplementedError


@config
class Float16(Precision):
    """16-bit floats; the tensor's own dtype is recorded and restored."""

    def encode(self, name: str, tensor: torch.Tensor, role: Role) -> Encoded:
        return keep(name, tensor, role, torch.float16)


@config
class Float32(Precision):
    """32-bit floats."""

    def encode(self, name: str, tensor: torch.Tensor, role: Role) -> Encoded:
        return keep(name, tensor, role, torch.float32)


@config
class IntRows(Precision):
    """Symmetric integers with one fp16 scale a row (dimension 0).

    The weights are divided by the scale as it is stored, after rounding to fp16, so rounding is exact in the
    reader's terms. The floor of the scale only keeps fp16 out of its last binades: rows below 1e-4 lose precision,
    no others.
    """

    bits: Annotated[int, Range(at_least=2, at_most=8)] = 8
    clip: Clip = field(default_factory=AmaxClip)
    scale_floor: PositiveFloat = 2.0**-20

    def encode(self, name: str, tensor: torch.Tensor, role: Role) -> Encoded:
        wide = tensor.float().reshape(tensor.shape[0], -1)
        high = 2 ** (self.bits - 1) - 1
        scale = _half(name, (self.clip.limit(wide) / high).clamp_min(self.scale_floor))
        codes = round_to_codes(wide, scale.float(), None, high).reshape(tensor.shape)
        return scaled(name, tensor, role, codes, scale, high)


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

    def precision(self, role: Role) -> Precision:
        """How tensors of this role are stored when they are large enough."""
        chosen = {Role.MATRIX: self.matrix, Role.EMBEDDING: self.embedding, Role.HEAD: self.head, Role.GATE: self.gate}
        if role is Role.GAIN:
            return Float32()
        if role not in chosen:
            raise ArtifactError(
                f"RoundToNearest has no precision for the role {role!r}; valid: {', '.join(chosen)}, gain"
            )
        return chosen[role] or IntRows(bits=self.bits, clip=self.clip)

    def encode(self, name: str, tensor: torch.Tensor, role: Role) -> Encoded:
        if not tensor.is_floating_point():
            return keep(name, tensor, role, tensor.dtype)
        is_small = tensor.ndim < 2 or tensor.numel() <= self.passthrough_elements
        precision = self.precision(role)
        return (Float16() if is_small and role is not Role.GAIN else precision).encode(name, tensor, role)


# ------------------------------------------------------------------------------------------------- building blocks


def keep(name: str, tensor: torch.Tensor, role: Role, dtype: torch.dtype) -> Encoded:
    """The tensor unquantised as `dtype`. Raises ArtifactError when a value overflows it."""
    values = tensor.to(dtype)
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        raise ArtifactError(
            f"tensor {name!r}: largest magnitude {float(tensor.abs().max()):g} overflows {dtype_name(dtype)}"
        )
    return Encoded(name, role, tuple(tensor.shape), dtype_name(tensor.dtype), "plain", {"values": values})


def round_to_codes(rows: torch.Tensor, scale: torch.Tensor, limit: torch.Tensor | None, high: int) -> torch.Tensor:
    """clamp(round(rows / scale), -high, high) as int8, half to even; rows are clipped to +-limit first."""
    if limit is not None:
        rows = rows.clamp(-limit[:, None], limit[:, None])
    return (rows / scale[:, None]).round_().clamp_(-high, high).to(torch.int8)


def scaled(
    name: str, tensor: torch.Tensor, role: Role, codes: torch.Tensor, scales: torch.Tensor, high: int
) -> Encoded:
    """`codes` in [-high, high] and their scales as a stand-in for `tensor`."""
    parts = {"codes": codes, "scales": scales}
    meta = {"low": -high, "high": high}
    return Encoded(name, role, tuple(tensor.shape), dtype_name(tensor.dtype), "scaled", parts, meta)


def _half(name: str, scale: torch.Tensor) -> torch.Tensor:
    half = scale.half()
    if not bool(torch.isfinite(half).all()):
        raise ArtifactError(
            f"tensor {name!r}: scale {float(scale.max()):g} overflows float16; the weights have diverged"
        )
    return half
