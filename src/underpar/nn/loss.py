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


def multi_target_losses(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """sum_k weights[k] * (logsumexp(logits_t) - logits_t[token t + 1 + k]), terms beyond the end of the row left out.

    logits: (B, T, V) bounded, float32. targets: (B, T) int64, the next token of each. weights: (K,). Later targets may lie in
    another document. Returns (B, T) float32 nats. Source: modded-nanogpt, record 53.
    """
    total = torch.logsumexp(logits, dim=-1)
    length = targets.shape[1]
    losses = torch.zeros_like(total)
    for ahead in range(min(weights.shape[0], length)):
        reached = length - ahead
        chosen = logits[:, :reached].gather(-1, targets[:, ahead:].unsqueeze(-1)).squeeze(-1)
        losses = losses + F.pad(weights[ahead] * (total[:, :reached] - chosen), (0, ahead))
    return losses
