"""NorMuon: Muon whose rows have a second moment, as in Adam."""

import torch
from torch import Tensor

from underpar.core.config import Fraction, config
from underpar.optim.sharded import MatrixOptimiser


@config
class NorMuon(MatrixOptimiser):
    """Divides each row of an orthogonalised update by its running size, and restores the Frobenius norm.

    buf <- buf + (1 - m)(g - buf);  u = orthogonalise((1 - m) g + m buf);  v <- beta2 v + (1 - beta2) mean of u^2 over the row;
    update = u / (sqrt(v) + 1e-10), scaled to ||u||_F. Momentum is the average here, not Muon's sum. v starts at zero without
    bias correction, which the restored norm cancels. Source: arXiv:2510.05491 in the form of golf PR #122.
    """

    beta2: Fraction = 0.95

    def new_state(self, count: int, rows: int, cols: int, device: str) -> dict[str, Tensor]:
        second = torch.zeros(count, rows, 1, device=device)
        momentum = MatrixOptimiser.new_state(self, count, rows, cols, device)  # super() fails in a slotted dataclass
        return momentum | {"second_moment": second}

    def update(self, grads: Tensor, state: dict[str, Tensor], momentum: float) -> Tensor:
        buffer, second = state["momentum"], state["second_moment"]
        buffer.lerp_(grads, 1.0 - momentum)
        update = self.orthogonalise(grads.lerp(buffer, momentum)).float()
        norm = torch.linalg.vector_norm(update, dim=(1, 2), keepdim=True)
        second.lerp_(update.square().mean(dim=2, keepdim=True), 1.0 - self.beta2)
        update = update / (second.sqrt() + 1e-10)
        return update * (norm / (torch.linalg.vector_norm(update, dim=(1, 2), keepdim=True) + 1e-10))
