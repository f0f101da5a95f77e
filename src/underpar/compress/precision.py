"""Precisions: how one tensor is stored. A quantiser chooses one for each."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch

from underpar.compress.clips import AmaxClip, Clip, SdClip
from underpar.compress.encoded import Encoded, dtype_name
from underpar.compress.gptq import Hessian, gptq
from underpar.core.config import Config, PositiveFloat, PositiveInt, Range, config, field
from underpar.core.errors import ArtifactError
from underpar.core.roles import Role


class Precision(Config):
    """Base of the precisions."""

    needs_hessian: ClassVar[bool] = False

    def encode(self, name: str, tensor: torch.Tensor, role: Role) -> Encoded:
        """One tensor, on the CPU and detached."""
        raise NotImplementedError

    def encode_together(
        self, names: Sequence[str], tensors: Sequence[torch.Tensor], roles: Sequence[Role], hessians: Sequence[Hessian]
    ) -> list[Encoded]:
        """Matrices of one shape with their Hessians, for a precision that needs them."""
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
        scale = half(name, (self.clip.limit(wide, high) / high).clamp_min(self.scale_floor))
        codes = round_to_codes(wide, scale.float(), None, high).reshape(tensor.shape)
        return scaled(name, tensor, role, codes, scale, high)


@config
class Gptq(Precision):
    """As `IntRows`, with codes chosen in turn so that each makes up for the errors before it. Source: arXiv:2210.17323.

    What counts is the error of the layer's output, tr(dW H dW^T); H is the second moment of the layer's input.
    """

    needs_hessian: ClassVar[bool] = True

    bits: Annotated[int, Range(at_least=2, at_most=8)] = 6
    clip: Clip = field(default_factory=SdClip)
    scale_floor: PositiveFloat = 2.0**-20
    damping: PositiveFloat = 0.01
    """Added to the diagonal of H, as a share of its mean."""
    block: PositiveInt = 128
    """Columns between updates of all that follow; no influence beyond rounding."""

    def encode(self, name: str, tensor: torch.Tensor, role: Role) -> Encoded:
        """By plain rounding: what comes out when nothing is known of the input."""
        return IntRows(bits=self.bits, clip=self.clip, scale_floor=self.scale_floor).encode(name, tensor, role)

    def encode_together(
        self, names: Sequence[str], tensors: Sequence[torch.Tensor], roles: Sequence[Role], hessians: Sequence[Hessian]
    ) -> list[Encoded]:
        """Matrices of one shape as a batch, on the device of their Hessians."""
        high = 2 ** (self.bits - 1) - 1
        device = hessians[0].gram.device
        weights = torch.stack([tensor.to(device, torch.float32) for tensor in tensors])
        limits = (self.clip.limit(weights, high) / high).clamp_min(self.scale_floor)
        scales = torch.stack([half(name, limit) for name, limit in zip(names, limits, strict=True)])
        grams = torch.stack([hessian.gram.float() for hessian in hessians])
        codes = gptq(weights, grams, scales.float(), high, damping=self.damping, block=self.block)
        return [
            scaled(*item, codes[i].cpu(), scales[i].cpu(), high)
            for i, item in enumerate(zip(names, tensors, roles, strict=True))
        ]


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


def half(name: str, scale: torch.Tensor) -> torch.Tensor:
    """Scales as float16. Raises ArtifactError when one overflows it."""
    stored = scale.half()
    if not bool(torch.isfinite(stored).all()):
        raise ArtifactError(
            f"tensor {name!r}: scale {float(scale.max()):g} overflows float16; the weights have diverged"
        )
    return stored
