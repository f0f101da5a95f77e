"""Output projection in fp8 and the loss behind it: the most expensive product of a small model, at twice the rate."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.dispatch import HOPPER, uses_kernel, why_not_triton
from underpar.kernels.fp8_head import op
from underpar.kernels.multi_target_ce import LARGEST_SCALE, Cap, check, multi_target_cross_entropy

__all__ = ["PUBLISHED_UNITS", "Units", "fp8_head_loss"]


class Units(NamedTuple):
    """What one step of the fp8 numbers is worth: operands are divided by them, and cut at 448 of them."""

    hidden: float
    weight: float


PUBLISHED_UNITS = Units(100 / 448, 1.6 / 448)
"""Hidden states up to 100 and weights up to 1.6. Source: the speedrun, record 51."""


def fp8_head_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    cap: Cap,
    row_tokens: int | None = None,
    units: Units = PUBLISHED_UNITS,
) -> Tensor:
    """`multi_target_cross_entropy` of hidden @ weight^T, with the product and its gradients in fp8 where the GPU has it.

    Args:
        hidden: (N, D) bf16. weight: (V, D). Both differentiable once; gradients have their dtypes.
        targets, weights, cap, row_tokens: as there.
        units: how numbers become fp8. What is larger than 448 units is cut, not lost.
    Returns:
        losses (N,) fp32. Where there is no fp8 (or N, D, V are no multiples of 16) the product is one of `hidden`'s dtype.
    Raises:
        ConfigError: sizes do not fit.
    Cost: 3 products of 2 N V D operations in fp8, and over (N, V) one writing and two readings in bf16, two of each in fp8;
        saves (N, V) bf16 and both operands in fp8. e4m3 has 4 significant bits: a loss moves by about 0.01.
    Source: the speedrun, records 19 and 51; the unit of the gradient is the caller's largest here, not a constant.
    """
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ConfigError(
            f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} do not fit; need (N, D), (V, D)"
        )
    length = hidden.shape[0] if row_tokens is None else row_tokens
    sizes = (*hidden.shape, weight.shape[0])
    reason = why_not_triton(hidden, HOPPER)
    if reason is None and hidden.dtype != torch.bfloat16:
        reason = f"hidden states are {hidden.dtype}"
    if reason is None and any(size % 16 for size in sizes):
        reason = f"sizes {sizes} are not all multiples of 16"
    if reason is None and cap.scale > LARGEST_SCALE:
        reason = f"the cap of {cap.scale:g} is over {LARGEST_SCALE:g}"
    if uses_kernel("fp8_head_loss", reason):
        check(hidden, targets, weights, length)
        return op.fp8_head(hidden, weight, targets, weights, *cap, length, *units)[0]
    return multi_target_cross_entropy(F.linear(hidden, weight.to(hidden.dtype)), targets, weights, cap, length)
