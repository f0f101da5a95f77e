"""Clips: the magnitude that the largest code of a row stands for. Wide ones code small, narrow ones are exact."""

import torch

from underpar.core.config import Config, Fraction, PositiveFloat, config

ROWS_AT_ONCE = 1 << 22
"""Elements whose order statistics are found in one go; bounds the scratch memory."""


class Clip(Config):
    """Base of the clips."""

    def limit(self, rows: torch.Tensor, high: int) -> torch.Tensor:
        """(..., rows, cols) fp32 -> (..., rows) fp32; `high` is the largest code."""
        raise NotImplementedError


@config
class AmaxClip(Clip):
    """The largest magnitude of the row: nothing is clipped."""

    def limit(self, rows: torch.Tensor, high: int) -> torch.Tensor:
        return rows.abs().amax(-1)


@config
class QuantileClip(Clip):
    """A quantile of the magnitudes of the row, linearly interpolated."""

    quantile: Fraction = 0.9999984

    def limit(self, rows: torch.Tensor, high: int) -> torch.Tensor:
        return row_quantile(rows.abs().flatten(0, -2), self.quantile).reshape(rows.shape[:-1])


@config
class BestQuantileClip(Clip):
    """Of several quantiles the one whose rounding error is least for the whole matrix, without a Hessian ("GPTQ-lite").

    Source: the record of 22 March of the 16 MB game.
    """

    quantiles: tuple[Fraction, ...] = (0.999, 0.9995, 0.9999, 0.99999, 1.0)

    def limit(self, rows: torch.Tensor, high: int) -> torch.Tensor:
        limits = torch.stack([QuantileClip(quantile=q).limit(rows, high) for q in self.quantiles])
        steps = (limits / high).clamp_min(1e-12)[..., None]
        errors = torch.stack([((rows / s).round().clamp(-high, high) * s - rows).square().sum((-1, -2)) for s in steps])
        best = errors.argmin(0)
        return limits.gather(0, best[None, ..., None].expand(1, *limits.shape[1:]))[0]


@config
class SdClip(Clip):
    """A multiple of the row's standard deviation (SDClip): a wide clip at more bits codes as small as fewer bits do.

    The coded size falls by log2 of the factor by which `sigmas` grows; typical 11 to 15. A row of one element uses
    its magnitude.
    """

    sigmas: PositiveFloat = 12.85

    def limit(self, rows: torch.Tensor, high: int) -> torch.Tensor:
        return rows.std(-1) * self.sigmas if rows.shape[-1] > 1 else rows.abs().amax(-1)


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
