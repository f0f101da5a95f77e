"""Low-rank corrections of the largest errors (LQER, arXiv:2402.02446): W = codes * scales + A B, with coarse A and B."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import torch

from underpar.compress.encoded import MAX_RANK, Encoded, decode
from underpar.compress.precision import half
from underpar.core.config import Config, PositiveInt, Range, config

Bits = Annotated[int, Range(at_least=2, at_most=8)]


class Correction(Config):
    """Base of the corrections."""

    def apply(self, encoded: list[Encoded], tensors: Mapping[str, torch.Tensor]) -> list[Encoded]:
        """The encoded tensors, some with a correction. tensors: what was encoded, by name."""
        raise NotImplementedError


@config
class NoCorrection(Correction):
    """Errors stay as they are."""

    def apply(self, encoded: list[Encoded], tensors: Mapping[str, torch.Tensor]) -> list[Encoded]:
        return encoded


class _LargestErrors(Correction):
    """Base of those that correct the `count` tensors of largest error by norm, by their leading singular vectors."""

    rank: int
    count: int

    def apply(self, encoded: list[Encoded], tensors: Mapping[str, torch.Tensor]) -> list[Encoded]:
        errors = {
            item.name: tensors[item.name].float() - decode(replace(item, dtype="float32"))
            for item in encoded
            if item.method == "scaled" and len(item.shape) == 2 and min(item.shape) >= self.rank
        }
        largest = sorted(errors, key=lambda name: -float(errors[name].norm()))[: self.count]
        return [self.correct(item, errors[item.name]) if item.name in largest else item for item in encoded]

    def correct(self, item: Encoded, error: torch.Tensor) -> Encoded:
        """`item` with the correction of `error` (rows, cols)."""
        left, values, right = torch.linalg.svd(error, full_matrices=False)
        parts = self.factors(item.name, left[:, : self.rank] * values[: self.rank], right[: self.rank])
        return replace(item, method="scaled+lowrank", parts=dict(item.parts) | parts)

    def factors(self, name: str, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts that store A (rows, rank) and B (rank, cols)."""
        raise NotImplementedError


@config
class AsymmetricLowRank(_LargestErrors):
    """A with one scale for all of it, B with one for each group of columns; A gets fewer bits. Source: golf PR #1797.

    Codes use the whole two's-complement range; a scale is the largest magnitude over half a code more than the largest code.
    B falls back to a scale a row where groups do not divide it.
    """

    rank: Annotated[int, Range(at_least=1, at_most=MAX_RANK)] = 4
    count: PositiveInt = 3
    left_bits: Bits = 2
    right_bits: Bits = 4
    group: PositiveInt = 64

    def factors(self, name: str, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        size = self.group if right.numel() % self.group == 0 else right.shape[1]
        left_codes, left_scales = _two_complement(name, left.reshape(1, -1), self.left_bits)
        right_codes, right_scales = _two_complement(name, right.reshape(-1, size), self.right_bits)
        return {
            "left": left_codes.reshape(left.shape),
            "left_scales": left_scales.reshape(()),
            "right": right_codes.reshape(right.shape),
            "right_scales": right_scales,
        }


@config
class SymmetricLowRank(_LargestErrors):
    """A and B with a scale for each row and the same bits: the symmetric form."""

    rank: Annotated[int, Range(at_least=1, at_most=MAX_RANK)] = 4
    count: PositiveInt = 3
    bits: Bits = 4

    def factors(self, name: str, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = {}
        for part, factor in (("left", left), ("right", right)):
            high = 2 ** (self.bits - 1) - 1
            scales = half(name, (factor.abs().amax(1) / high).clamp_min(2.0**-20))
            parts[part] = (factor / scales.float()[:, None]).round().clamp(-high, high).to(torch.int8)
            parts[f"{part}_scales"] = scales
        return parts


def _two_complement(name: str, groups: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and fp16 scales of each row of `groups`."""
    low = -(2 ** (bits - 1))
    scales = half(name, (groups.abs().amax(1) / (-low - 0.5)).clamp_min(2.0**-20))
    return (groups / scales.float()[:, None]).round().clamp(low, -low - 1).to(torch.int8), scales
