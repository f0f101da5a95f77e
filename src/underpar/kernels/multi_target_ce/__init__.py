"""Cross-entropy of several targets a row over logits under a sigmoid cap: the training loss of the speedrun."""

import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.dispatch import uses_kernel, why_not_triton
from underpar.kernels.multi_target_ce import op, ref
from underpar.kernels.multi_target_ce.ref import Cap

__all__ = ["Cap", "multi_target_cross_entropy"]

_KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
LARGEST_SCALE = 60.0
"""exp(-scale) has to stay well above the smallest float32 for a sum without a running maximum."""


def multi_target_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, cap: Cap, row_tokens: int | None = None
) -> Tensor:
    """Loss in nats of every position: sum over k of weights[k] * -log softmax(cap(logits_t))[targets[t + k]].

    Args:
        logits: (N, V) before the cap; bf16, fp16 or fp32. Rows may be strided. Differentiable once.
        targets: (N,) int64 or int32 in [0, V), the next token of every position. No index is ignored: on a GPU a target
            outside gives a NaN loss, on the CPU torch's own error.
        weights: (K,) float32 on the device of the logits, with K from 1 to 8. Values may change from call to call without a
            new graph. Not differentiated.
        cap: the bound on the logits.
        row_tokens: positions of one row of text; terms beyond a row's end are left out. None takes all N as one row.
    Returns:
        losses (N,) fp32. The gradient of `logits` has their dtype.
    Raises:
        ConfigError: ranks, sizes or dtypes do not fit.
    Cost: on a GPU, 3 passes over the logits in device memory, forward and backward together; saves (N,) fp32.
    Source: the speedrun, records 53 (several targets), 54 (the cap) and 60 (one kernel).
    """
    length = logits.shape[0] if row_tokens is None else row_tokens
    check(logits, targets, weights, length)
    reason = why_not_triton(logits)
    if reason is None and logits.dtype not in _KERNEL_DTYPES:
        reason = f"logits are {logits.dtype}"
    if reason is None and cap.scale > LARGEST_SCALE:
        reason = f"the cap of {cap.scale:g} is over {LARGEST_SCALE:g}"
    if uses_kernel("multi_target_cross_entropy", reason):
        return op.multi_target_ce(logits, targets, weights, *cap, length)[0]
    return ref.multi_target_cross_entropy(logits, targets, weights, cap, length)


def check(logits: Tensor, targets: Tensor, weights: Tensor, row_tokens: int) -> None:
    """Raises ConfigError on what does not fit."""
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or logits.shape[1] == 0:
        raise ConfigError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} do not fit; "
            "need (N, V) and (N,) with V > 0"
        )
    if weights.ndim != 1 or not 1 <= weights.shape[0] <= 8:
        raise ConfigError(f"weights are {tuple(weights.shape)}; need (K,) with K from 1 to 8")
    if targets.dtype not in (torch.int64, torch.int32):
        raise ConfigError(f"targets are {targets.dtype}; they must be int64 or int32")
    if not logits.device == targets.device == weights.device:
        raise ConfigError(
            f"logits are on {logits.device}, targets on {targets.device}, weights on {weights.device}; put them together"
        )
    if logits.shape[0] % max(1, row_tokens):
        raise ConfigError(f"{logits.shape[0]} positions are no whole number of rows of {row_tokens}")
