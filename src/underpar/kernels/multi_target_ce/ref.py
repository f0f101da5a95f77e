"""Cross-entropy of several targets a row under a sigmoid cap, in plain torch: the definition of correct."""

from typing import NamedTuple

import torch
from torch import Tensor


class Cap(NamedTuple):
    """z -> scale * sigmoid((z + shift) / divisor): a bound on logits that is steeper above than below."""

    scale: float
    shift: float
    divisor: float

    @property
    def steepest(self) -> float:
        """The largest slope."""
        return self.scale / (4.0 * self.divisor)

    def __call__(self, logits: Tensor) -> Tensor:
        return self.scale * torch.sigmoid((logits + self.shift) / self.divisor)


def multi_target_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, cap: Cap, row_tokens: int) -> Tensor:
    """sum over k of weights[k] * (logsumexp(c_t) - c_t[targets[t + k]]) with c = cap(logits), in nats: (N,).

    logits (N, V), targets (N,): rows of `row_tokens` positions one after another; terms beyond a row's end are left out.
    Computes in fp32, or in fp64 when the logits are fp64.
    """
    capped = cap(logits if logits.dtype == torch.float64 else logits.float())
    total = torch.logsumexp(capped, dim=-1)
    place = torch.arange(len(targets), device=targets.device) % row_tokens
    losses = torch.zeros_like(total)
    for ahead in range(weights.shape[0]):
        later = targets.roll(-ahead).long()
        term = total - capped.gather(1, later[:, None])[:, 0]
        losses = losses + torch.where(place + ahead < row_tokens, weights[ahead] * term, torch.zeros_like(term))
    return losses


def multi_target_gradient(
    grad_losses: Tensor, logits: Tensor, targets: Tensor, weights: Tensor, cap: Cap, row_tokens: int
) -> Tensor:
    """The gradient of `logits` (N, V) in fp32 by its formula, for places where autograd does not reach: inside operators.

    grad_losses (N,) times cap'(logits) times (S softmax(c_t) - sum over k of weights[k] at targets[t + k]), S the sum of the
    weights that apply to the row.
    """
    capped = cap(logits.float())
    place = torch.arange(len(targets), device=targets.device) % row_tokens
    hits = torch.zeros_like(capped)
    for ahead in range(weights.shape[0]):
        weight = torch.where(place + ahead < row_tokens, weights[ahead], torch.zeros_like(weights[ahead]))
        hits.scatter_add_(1, targets.roll(-ahead).long()[:, None], weight[:, None])
    dense = hits.sum(dim=1, keepdim=True) * torch.softmax(capped, dim=-1)
    slope = capped * (1.0 - capped / cap.scale) / cap.divisor
    return grad_losses[:, None] * slope * (dense - hits)
