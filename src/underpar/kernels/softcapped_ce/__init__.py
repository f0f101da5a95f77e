"""Cross-entropy over soft-capped logits: the training loss, one kernel forward and one backward."""

import math

import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.dispatch import uses_kernel, why_not_triton
from underpar.kernels.softcapped_ce import op, ref

__all__ = ["cross_entropy", "softcapped_cross_entropy"]

_KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def softcapped_cross_entropy(logits: Tensor, targets: Tensor, softcap: float) -> Tensor:
    """Loss in nats of every row: -log softmax(softcap * tanh(logits / softcap))[target].

    Args:
        logits: (N, V) before the cap; bf16, fp16 or fp32. Rows may be strided. Differentiable once.
        targets: (N,) int64 (or int32) in [0, V). No index is ignored: on a GPU a target outside gives a NaN
            loss, on the CPU torch's own error.
        softcap: the bound C of the capped logits, in nats, finite and > 0; 15 to 30 in published recipes.
    Returns:
        losses (N,) fp32. The gradient of `logits` has their dtype.
    Raises:
        ConfigError: ranks, sizes or dtypes do not fit, or softcap is not finite and positive.
    Cost: on a GPU, 3 passes over the logits in device memory, forward and backward together; saves (N,) fp32.
    Source: logit soft-capping of Gemma 2 (2024); the kernel's identity is stated in triton.py.
    """
    if not (math.isfinite(softcap) and softcap > 0):
        raise ConfigError(f"softcap is {softcap}; it must be finite and > 0; for no cap call cross_entropy")
    if _takes_kernel("softcapped_cross_entropy", logits, targets):
        return op.softcapped_ce(logits, targets, float(softcap))[0]
    return ref.softcapped_cross_entropy(logits, targets, softcap)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss in nats of every row without a cap: -log softmax(logits)[target]; otherwise as softcapped_cross_entropy."""
    if _takes_kernel("cross_entropy", logits, targets):
        return op.softcapped_ce(logits, targets, op.NO_CAP)[0]
    return ref.cross_entropy(logits, targets)


def _takes_kernel(operation: str, logits: Tensor, targets: Tensor) -> bool:
    _check(logits, targets)
    reason = why_not_triton(logits)
    if reason is None and logits.dtype not in _KERNEL_DTYPES:
        reason = f"logits are {logits.dtype}"
    return uses_kernel(operation, reason)


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 2 or targets.ndim != 1 or logits.shape[0] != targets.shape[0] or logits.shape[1] == 0:
        raise ConfigError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} do not fit; "
            "need (N, V) and (N,) with V > 0"
        )
    if not logits.is_floating_point():
        raise ConfigError(f"logits are {logits.dtype}; they must be floating point")
    if targets.dtype not in (torch.int64, torch.int32):
        raise ConfigError(f"targets are {targets.dtype}; they must be int64 or int32")
    if logits.device != targets.device:
        raise ConfigError(f"logits are on {logits.device}, targets on {targets.device}; move one of them")
