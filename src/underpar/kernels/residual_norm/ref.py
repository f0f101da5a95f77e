"""A weighted sum of streams, its mixture with the embedding, and the norm, in plain torch: the definition of correct."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def residual_norm(
    streams: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    x0: Tensor | None,
    mix: Tensor | None,
    *,
    gain: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Streams (..., D), weights (D,) or None for one, x0 (..., D) and mix (2, D) or None -> total, mixed, normed.

    Computes in fp32 (fp64 for fp64 inputs) and rounds each result once. Without a mix, mixed is total.
    """
    dtype = streams[0].dtype
    terms = [_widened(x) if w is None else _widened(w) * _widened(x) for x, w in zip(streams, weights, strict=True)]
    total = mixed = functools.reduce(torch.add, terms)
    if x0 is not None and mix is not None:
        mixed = _widened(mix)[0] * total + _widened(mix)[1] * _widened(x0)
    normed = gain * F.rms_norm(mixed, mixed.shape[-1:], eps=eps)
    return total.to(dtype), mixed.to(dtype), normed.to(dtype)


def _widened(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
