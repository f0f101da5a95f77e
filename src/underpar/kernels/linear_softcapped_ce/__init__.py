"""The output head's projection together with the training loss, without ever holding all logits."""

import math

import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.dispatch import uses_kernel, why_not_triton
from underpar.kernels.linear_softcapped_ce import op, ref

__all__ = ["linear_softcapped_cross_entropy"]

CHUNK_ROWS = 8192
"""Rows whose logits exist at once: 128 MiB of bf16 at a vocabulary of 8,192, and products large enough to fill a GPU."""
_KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def linear_softcapped_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, *, same_gradient: bool = False
) -> Tensor:
    """Loss in nats of every row: softcapped_cross_entropy of the logits hidden weight^T.

    Args:
        hidden: (N, D). Under autocast it is cast to the autocast dtype.
        weight: (V, D), cast to the dtype of hidden, so that an fp32 master weight can be passed as it is.
        targets: (N,) int64 (or int32) in [0, V). On a GPU a target outside gives a NaN loss.
        softcap: the bound of the capped logits, in nats, finite and > 0.
        same_gradient: the caller's word that all losses get one gradient, as under a sum or a mean. The gradients are then
            formed in the forward, which spares a product and a pass over the logits; a broken word gives NaN gradients.
    Returns:
        losses (N,) fp32. Gradients: of hidden in its dtype, of weight summed in fp32.
    Raises:
        ConfigError: ranks, sizes or dtypes do not fit, or softcap is not finite and positive.
    Cost: 3 matrix products with same_gradient, otherwise 4; on a GPU 8,192 rows of logits at a time instead of all.
    Source: gradients in the forward, in chunks: Liger kernel, arXiv:2410.10989.
    """
    _check(hidden, weight, targets, softcap)
    device_type = hidden.device.type
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else hidden.dtype
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    if not uses_kernel("linear_softcapped_cross_entropy", _why_not(hidden)):
        return ref.linear_softcapped_cross_entropy(hidden, weight, targets, softcap)
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    operator = op.linear_softcapped_ce_same_gradient if same_gradient and needs_gradient else op.linear_softcapped_ce
    return operator(hidden, weight, targets, float(softcap), CHUNK_ROWS)[0]


def _why_not(hidden: Tensor) -> str | None:
    reason = why_not_triton(hidden)
    if reason is None and hidden.dtype not in _KERNEL_DTYPES:
        reason = f"hidden is {hidden.dtype}"
    return reason


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float) -> None:
    if not (math.isfinite(softcap) and softcap > 0):
        raise ConfigError(f"softcap is {softcap}; it must be finite and > 0")
    fits = hidden.ndim == 2 and weight.ndim == 2 and targets.ndim == 1
    if not fits or hidden.shape[1] != weight.shape[1] or hidden.shape[0] != targets.shape[0] or weight.shape[0] == 0:
        raise ConfigError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and targets {tuple(targets.shape)} do not fit; "
            "need (N, D), (V, D) and (N,) with V > 0"
        )
    if not (hidden.is_floating_point() and weight.is_floating_point()):
        raise ConfigError(f"hidden is {hidden.dtype}, weight {weight.dtype}; they must be floating point")
    if targets.dtype not in (torch.int64, torch.int32):
        raise ConfigError(f"targets are {targets.dtype}; they must be int64 or int32")
    if not hidden.device == weight.device == targets.device:
        raise ConfigError(
            f"hidden is on {hidden.device}, weight on {weight.device}, targets on {targets.device}; move them together"
        )
