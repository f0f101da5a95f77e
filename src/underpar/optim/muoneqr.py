"""MuonEq-R: Muon on rows made equally long."""

import torch
from torch import Tensor

from underpar.core.config import config
from underpar.optim.muon import nesterov
from underpar.optim.sharded import MatrixOptimiser


@config
class MuonEqR(MatrixOptimiser):
    """As Muon, with every row of the Nesterov momentum divided by max(its length, 1e-7) before orthogonalisation.

    Source: the late line of the 16 MB game, golf PR #1736; bfloat16 buffers there.
    """

    def update(self, grads: Tensor, state: dict[str, Tensor], momentum: float) -> Tensor:
        mixed = nesterov(grads, state["momentum"], momentum)
        lengths = torch.linalg.vector_norm(mixed, dim=2, keepdim=True, dtype=torch.float32)
        return self.orthogonalise((mixed / lengths.clamp_min_(1e-7)).to(mixed.dtype))
