"""The (leaky) squared-ReLU MLP with its activation fused into the matrix products."""

import math

import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.dispatch import HOPPER, uses_kernel, why_not_triton
from underpar.kernels.mlp_act import op, ref

__all__ = ["mlp_act"]

_ALIGNMENT = 8
"""bf16 numbers in the 16 bytes to which the copy engine needs rows aligned."""


def mlp_act(x: Tensor, w_up: Tensor, w_down: Tensor, negative_slope: float = 0.0) -> Tensor:
    """f(x w_up^T) w_down^T with f(u) = u^2 for u > 0 and (negative_slope u)^2 otherwise.

    Args:
        x: (..., D). Under autocast it is cast to the autocast dtype.
        w_up: (F, D). w_down: (D', F). Cast to the dtype of x, so that fp32 master weights can be passed as they are.
        negative_slope: finite, >= 0. 0 is ReLU squared; 0.5 the leaky form of later recipes.
    Returns:
        (..., D') in the dtype of x.
    Raises:
        ConfigError: shapes do not fit, or the slope is negative or not finite.
    Cost: 2 matrix products forward, 4 backward, as usual; saves (..., F) once, twice with a slope. The kernel runs
        on bf16 on Hopper and newer, with D, D' and F multiples of 8; anything else is plain torch.
    Source: squared ReLU, So et al. 2021 (Primer).
    """
    _check(x, w_up, w_down, negative_slope)
    device_type = x.device.type
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else x.dtype
    x, w_up, w_down = x.to(dtype), w_up.to(dtype), w_down.to(dtype)
    if not uses_kernel("mlp_act", _why_not(x, w_up, w_down)):
        return ref.mlp_act(x, w_up, w_down, negative_slope)
    rows = x.reshape(-1, x.shape[-1])
    return op.mlp_act(rows, w_up, w_down, float(negative_slope))[0].view(*x.shape[:-1], w_down.shape[0])


def _why_not(x: Tensor, w_up: Tensor, w_down: Tensor) -> str | None:
    if (reason := why_not_triton(x, HOPPER)) is not None:
        return reason
    if x.dtype != torch.bfloat16:
        return f"x is {x.dtype}"
    if any(size % _ALIGNMENT for size in (*w_up.shape, *w_down.shape)):
        return f"w_up {tuple(w_up.shape)} or w_down {tuple(w_down.shape)} has a size that 8 does not divide"
    return None


def _check(x: Tensor, w_up: Tensor, w_down: Tensor, negative_slope: float) -> None:
    if not (math.isfinite(negative_slope) and negative_slope >= 0):
        raise ConfigError(f"negative_slope is {negative_slope}; it must be finite and >= 0")
    fits = x.ndim >= 1 and w_up.ndim == 2 and w_down.ndim == 2
    if not fits or x.shape[-1] != w_up.shape[1] or w_up.shape[0] != w_down.shape[1]:
        raise ConfigError(
            f"x {tuple(x.shape)}, w_up {tuple(w_up.shape)} and w_down {tuple(w_down.shape)} do not fit; "
            "need (..., D), (F, D) and (D', F)"
        )
