"""NorMuon as the speedrun has it: second moments along the longer side."""

import torch
from torch import Tensor

from underpar.core.config import Fraction, config
from underpar.optim.fused import fused
from underpar.optim.sharded import MatrixOptimiser


@config
class SidedNorMuon(MatrixOptimiser):
    """As NorMuon, with one second moment a row where rows >= cols, and one a column where there are more columns.

    buf <- buf + (1 - m)(g - buf);  u = orthogonalise((1 - m) g + m buf);  v <- v + (1 - beta2)(mean of u^2 - v);
    update = u / sqrt(max(v, 1e-10)), scaled to ||u||_F. A weight and its transpose are treated alike. No bias
    correction. Source: the speedrun, records 41 and 48.
    """

    beta2: Fraction = 0.95

    def new_state(self, count: int, rows: int, cols: int, device: str) -> dict[str, Tensor]:
        shape = (count, rows, 1) if rows >= cols else (count, 1, cols)
        momentum = MatrixOptimiser.new_state(self, count, rows, cols, device)  # super() fails in a slotted dataclass
        return momentum | {"second_moment": torch.zeros(shape, device=device)}

    def update(self, grads: Tensor, state: dict[str, Tensor], momentum: float) -> Tensor:
        numbers = torch.tensor(1.0 - momentum), torch.tensor(momentum)
        update = self.orthogonalise(_look_ahead(grads, state["momentum"], *numbers))
        evened, second = _evened(update, state["second_moment"], torch.tensor(1.0 - self.beta2))
        state["second_moment"].copy_(second)
        return evened


@fused
def _look_ahead(grads: Tensor, buffer: Tensor, pace: Tensor, momentum: Tensor) -> Tensor:
    """(1 - m) g + m buf, as orthogonalisers take it, behind the buffer's own step, in place."""
    average = buffer + pace * (grads - buffer)
    buffer.copy_(average)
    return (grads + momentum * (average - grads)).to(torch.bfloat16 if grads.is_cuda else grads.dtype)


@fused
def _evened(update: Tensor, second: Tensor, pace: Tensor) -> tuple[Tensor, Tensor]:
    """The update with its rows or columns evened out, in its dtype and with its norm, and the new second moment."""
    wide = update.float()
    along = 2 if second.shape[2] == 1 else 1
    second = second + pace * (wide.square().mean(dim=along, keepdim=True) - second)
    evened = wide * second.clamp_min(1e-10).rsqrt()
    norm = torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True)
    evened = evened * (norm / torch.linalg.vector_norm(evened, dim=(1, 2), keepdim=True).clamp_min(1e-10))
    return evened.to(update.dtype), second
