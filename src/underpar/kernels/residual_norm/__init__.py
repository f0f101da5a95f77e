"""The boundary between two branches of a block: residual sum, mixture with the embedding, norm."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.dispatch import uses_kernel, why_not_triton
from underpar.kernels.residual_norm import op, ref

__all__ = ["residual_mix_norm", "residual_norm"]

_KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_MAX_KERNEL_DIM = 4096
"""Above it a row and its sums no longer fit the registers of a program."""
_MAX_STREAMS = 4


def residual_norm(
    streams: Sequence[Tensor], weights: Sequence[Tensor | None], *, gain: float = 1.0, eps: float
) -> tuple[Tensor, Tensor]:
    """The sum of weighted streams, and its RMS norm for the next branch to read.

    total = sum of weight * stream; normed = gain * total / sqrt(mean(total^2) + eps), over D.

    Args:
        streams: 1 to 4 of (..., D), one shape and dtype: bf16, fp16 or fp32; arithmetic in fp32. (x, branch), say.
        weights: for every stream (D,) floating point, fp32 as a rule, or None for one. (None, scale), say.
        gain: finite; a layer's constant factor. eps: > 0.
    Returns:
        total and normed, contiguous, in the dtype of the streams; normed is taken before total is rounded.
    Raises:
        ConfigError: shapes, dtypes, gain or eps do not fit.
    Cost: forward one reading of the streams and two writings; backward one reading of the streams and of both gradients,
        and one writing of the streams' gradients; saves the streams.
    Source: RMS norm, Zhang and Sennrich 2019; layer gains as in golf PR #1736.
    """
    _check(streams, weights, None, None, gain, eps)
    _, total, normed = _dispatched(streams, weights, None, None, gain, eps, keep_total=False)
    return total, normed


def residual_mix_norm(
    streams: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    x0: Tensor,
    mix: Tensor,
    *,
    gain: float = 1.0,
    eps: float,
    keep_total: bool = False,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """residual_norm with the embedding mixed in before the norm: what passes from one block to the next.

    mixed = mix[0] * total + mix[1] * x0; normed = gain * mixed / sqrt(mean(mixed^2) + eps).

    Args:
        x0: as the streams; may be one of them. mix: (2, D). The rest as in residual_norm.
        keep_total: also write the sum before the mixture, for a skip connection or a lane that goes on without it.
    Returns:
        total (None unless kept), mixed and normed.
    Raises:
        ConfigError: shapes, dtypes, gain or eps do not fit.
    Cost: as residual_norm with one stream more to read, and going back one more to read and to write.
    """
    _check(streams, weights, x0, mix, gain, eps)
    total, mixed, normed = _dispatched(streams, weights, x0, mix, gain, eps, keep_total)
    return total if keep_total else None, mixed, normed


def _dispatched(
    streams: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    x0: Tensor | None,
    mix: Tensor | None,
    gain: float,
    eps: float,
    keep_total: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if not uses_kernel("residual_norm", _why_not(streams[0])):
        return ref.residual_norm(streams, weights, x0, mix, gain=gain, eps=eps)
    shape = streams[0].shape
    rows = [(x.reshape(-1, shape[-1]), w) for x, w in zip(streams, weights, strict=True)]
    ordered = [x for x, w in rows if w is None] + [x for x, w in rows if w is not None]
    total, mixed, normed = op.residual_norm(
        ordered,
        [w for w in weights if w is not None],
        None if x0 is None else x0.reshape(-1, shape[-1]),
        mix,
        float(gain),
        float(eps),
        keep_total,
    )
    return total.view(shape) if keep_total else total, mixed.view(shape), normed.view(shape)


def _why_not(x: Tensor) -> str | None:
    if (reason := why_not_triton(x)) is not None:
        return reason
    if x.dtype not in _KERNEL_DTYPES:
        return f"streams are {x.dtype}"
    if x.shape[-1] > _MAX_KERNEL_DIM:
        return f"rows of {x.shape[-1]} exceed {_MAX_KERNEL_DIM}"
    return None


def _check(
    streams: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    x0: Tensor | None,
    mix: Tensor | None,
    gain: float,
    eps: float,
) -> None:
    if not 1 <= len(streams) <= _MAX_STREAMS or len(weights) != len(streams):
        raise ConfigError(
            f"{len(streams)} streams and {len(weights)} weights; need 1 to {_MAX_STREAMS} streams and as many weights"
        )
    first = streams[0]
    if first.ndim < 1 or first.shape[-1] == 0:
        raise ConfigError(f"a stream is {tuple(first.shape)}; need (..., D) with D > 0")
    for x in (*streams[1:], *([] if x0 is None else [x0])):
        if x.shape != first.shape or x.dtype != first.dtype:
            raise ConfigError(
                f"a stream is {tuple(x.shape)} {x.dtype}, the first {tuple(first.shape)} {first.dtype}; they must agree"
            )
    for w in weights:
        if w is not None and (w.shape != first.shape[-1:] or not w.is_floating_point()):
            raise ConfigError(f"a weight is {tuple(w.shape)} {w.dtype}; need floating point ({first.shape[-1]},)")
    if mix is not None and (mix.shape != (2, first.shape[-1]) or not mix.is_floating_point()):
        raise ConfigError(f"mix is {tuple(mix.shape)} {mix.dtype}; need floating point (2, {first.shape[-1]})")
    if not math.isfinite(gain):
        raise ConfigError(f"gain is {gain}; it must be finite")
    if not eps > 0:
        raise ConfigError(f"eps is {eps}; it must be > 0, or a row of zeros gives NaN")
