"""Head projection and soft-capped cross-entropy in plain torch: the definition of correct."""

import torch.nn.functional as F
from torch import Tensor

from underpar.kernels.softcapped_ce import ref


def linear_softcapped_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float) -> Tensor:
    """hidden (N, D), weight (V, D), targets (N,) -> losses (N,) in nats, at least fp32; logits in the dtype of hidden."""
    return ref.softcapped_cross_entropy(F.linear(hidden, weight.to(hidden.dtype)), targets, softcap)
