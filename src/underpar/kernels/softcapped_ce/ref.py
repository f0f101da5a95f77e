"""Soft-capped cross-entropy in plain torch: the definition of correct, and the path wherever the kernel is not."""

import torch
import torch.nn.functional as F
from torch import Tensor


def softcapped_cross_entropy(logits: Tensor, targets: Tensor, softcap: float) -> Tensor:
    """-log softmax(softcap * tanh(logits / softcap))[target], in nats. logits (N, V), targets (N,) -> losses (N,).

    Computes in fp32, or in fp64 when the logits are fp64.
    """
    return cross_entropy(softcap * torch.tanh(_widened(logits) / softcap), targets)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target], in nats. logits (N, V), targets (N,) -> losses (N,), at least fp32."""
    return F.cross_entropy(_widened(logits), targets.long(), reduction="none", ignore_index=-(2**63))


def _widened(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
