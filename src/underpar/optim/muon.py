"""Muon: momentum, Nesterov, orthogonalisation."""

from torch import Tensor

from underpar.core.config import config
from underpar.optim.sharded import MatrixOptimiser


@config
class Muon(MatrixOptimiser):
    """update = orthogonalise(g + m * buf) with buf <- m * buf + g. Source: K. Jordan et al. 2024."""

    def update(self, grads: Tensor, state: dict[str, Tensor], momentum: float) -> Tensor:
        return self.orthogonalise(nesterov(grads, state["momentum"], momentum))


def nesterov(grads: Tensor, buffer: Tensor, momentum: float) -> Tensor:
    """buffer <- momentum * buffer + grads, in place. Returns grads + momentum * buffer, in the same dtype."""
    buffer.mul_(momentum).add_(grads)
    return grads.add(buffer, alpha=momentum)
