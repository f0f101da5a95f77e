"""Exclusive self-attention and the gate on its heads, between attention and its output projection."""

import math

import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.dispatch import uses_kernel, why_not_triton
from underpar.kernels.exclusive_gate import op, ref

__all__ = ["exclusive_gate"]

_KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_KERNEL_HEAD_DIMS = (16, 32, 64, 128, 256)


def exclusive_gate(y: Tensor, v: Tensor | None = None, logits: Tensor | None = None, *, factor: float = 1.0) -> Tensor:
    """Remove from every head's output what lies along the token's own value, then scale the head by its gate.

    out_h = gate_h (y_h - (y_h . u) u) with u = v / max(||v||, 1e-12) of the head's group and
    gate_h = factor * sigmoid(logit_h).

    Args:
        y: (B, T, H, D) attention's output. bf16, fp16 or fp32; arithmetic in fp32.
        v: (B, T, Hkv, D) the values that attention read, same dtype, H a multiple of Hkv; query head h belongs to kv
            head h // (H / Hkv). May be a view of one projection's output. None: nothing is removed.
        logits: (B, T, H) floating point. None: no gate.
        factor: finite; 2 lets zero logits be the identity, 1 starts half open.
    Returns:
        (B, T, H, D), contiguous, dtype of y; y itself when both v and logits are None.
    Raises:
        ConfigError: shapes, dtypes or the factor do not fit.
    Cost: forward one reading of the inputs and one writing, backward one reading of the inputs and of the gradient and
        one writing of the gradients; saves the inputs.
    Source: golf PR #1736 (removal on every layer, dense gate), PR #1667 (factor 2), PR #1787 (gate from 12 dimensions).
    """
    _check(y, v, logits, factor)
    if v is None and logits is None:
        return y
    if uses_kernel("exclusive_gate", _why_not(y, logits)):
        return op.exclusive_gate(y, v, logits, float(factor))
    return ref.exclusive_gate(y, v, logits, factor)


def _why_not(y: Tensor, logits: Tensor | None) -> str | None:
    if (reason := why_not_triton(y)) is not None:
        return reason
    for name, x in (("y", y), ("logits", logits)):
        if x is not None and x.dtype not in _KERNEL_DTYPES:
            return f"{name} is {x.dtype}"
    if y.shape[3] not in _KERNEL_HEAD_DIMS:
        return f"head_dim {y.shape[3]} is not one of {_KERNEL_HEAD_DIMS}"
    return None


def _check(y: Tensor, v: Tensor | None, logits: Tensor | None, factor: float) -> None:
    if y.ndim != 4 or y.shape[2] == 0:
        raise ConfigError(f"y is {tuple(y.shape)}; need (B, T, H, D) with H > 0")
    if v is not None:
        if v.ndim != 4 or v.shape[:2] != y.shape[:2] or v.shape[3] != y.shape[3]:
            raise ConfigError(f"v {tuple(v.shape)} does not fit y {tuple(y.shape)}; need (B, T, Hkv, D)")
        if v.shape[2] == 0 or y.shape[2] % v.shape[2]:
            raise ConfigError(f"y has {y.shape[2]} heads; they must be a multiple of the {v.shape[2]} heads of v")
        if v.dtype != y.dtype:
            raise ConfigError(f"y is {y.dtype}, v is {v.dtype}; cast one of them")
    if logits is not None and (logits.shape != y.shape[:3] or not logits.is_floating_point()):
        raise ConfigError(
            f"logits {tuple(logits.shape)} of {logits.dtype} do not fit y {tuple(y.shape)}; "
            "need floating point (B, T, H)"
        )
    if not math.isfinite(factor):
        raise ConfigError(f"factor is {factor}; it must be finite")
