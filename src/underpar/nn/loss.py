"""How the training loss is computed from raw logits: one definition, two roundings."""

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.core.config import Config, config
from underpar.kernels.softcapped_ce import softcapped_cross_entropy


class Loss(Config):
    """Soft-cap and cross-entropy."""

    def __call__(self, logits: Tensor, targets: Tensor, softcap: float) -> Tensor:
        """logits (N, V) before the cap, targets (N,) int64 -> (N,) float32 nats."""
        raise NotImplementedError


@config
class FusedLoss(Loss):
    """One kernel forward and one backward, soft-cap and all in float32. Source: golf PR #1787."""

    def __call__(self, logits: Tensor, targets: Tensor, softcap: float) -> Tensor:
        return softcapped_cross_entropy(logits, targets, softcap)


@config
class EagerLoss(Loss):
    """The soft-cap in the dtype of the logits, then cross-entropy in float32, as the scripts before golf PR #1787 do."""

    def __call__(self, logits: Tensor, targets: Tensor, softcap: float) -> Tensor:
        capped = softcap * torch.tanh(logits / softcap)
        return F.cross_entropy(capped.float(), targets, reduction="none")
