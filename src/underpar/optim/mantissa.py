"""float32 weights kept in two halves: the bfloat16 parameter of the model, and the 16 bits below it here.

The model reads half as many bytes and nothing is cast, and no small update is lost to rounding. The halves are cut, not
rounded: float32 -> (high, low) -> float32 is exact. Source: the speedrun, record 57.
"""

import torch
from torch import Tensor

from underpar.core.config import config
from underpar.core.errors import ConfigError
from underpar.core.world import Pending, World
from underpar.optim.decay import Formula
from underpar.optim.fused import fused
from underpar.optim.sharded import MatrixOptimiser
from underpar.optim.stack import MasterWeights, Stack


@config
class Mantissa(MasterWeights):
    """bfloat16 parameters with the lower half of each float32 weight kept by the process that updates it."""

    def stack(self, config: MatrixOptimiser, params: dict[str, Tensor], world: World) -> Stack:
        for name, param in params.items():
            if param.dtype != torch.bfloat16:
                raise ConfigError(
                    f"Mantissa keeps the lower half of bfloat16 parameters; {name} is {param.dtype}: use AsStored"
                )
        return MantissaStack(config, params, world)


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 -> (bfloat16 upper half, int16 lower half), bit by bit."""
    bits = weight.view(torch.int32)
    return (bits >> 16).to(torch.int16).view(torch.bfloat16), bits.to(torch.int16)


def merge(high: Tensor, low: Tensor) -> Tensor:
    """The float32 tensor that `split` took apart."""
    bits = (high.view(torch.int16).to(torch.int32) << 16) | (low.to(torch.int32) & 0xFFFF)
    return bits.view(torch.float32)


@fused
def _advance_(high: Tensor, low: Tensor, update: Tensor, formula: Formula, *rates: Tensor) -> None:
    new_high, new_low = split(formula(merge(high, low), update.float(), *rates))
    high.copy_(new_high)
    low.copy_(new_low)


class MantissaStack(Stack):
    """Every process updates its own weights, and the upper halves are gathered."""

    def __init__(self, config: MatrixOptimiser, params: dict[str, Tensor], world: World) -> None:
        super().__init__(config, params, world)
        first = world.rank * self.slots
        self.mine = self.params[first : first + self.slots]
        shape = (self.slots, self.rows, self.cols)
        self.state["mantissa"] = torch.zeros(shape, dtype=torch.int16, device=world.device)

    def update(self, momentum: float, lr: float, decay: float) -> Pending:
        update = self.config.update(self.reduced(), self.state, momentum)
        self.gradients = None
        high = torch.zeros(self.slots, self.rows, self.cols, dtype=torch.bfloat16, device=self.world.device)
        if self.mine:  # a process beyond the last matrix holds padding alone
            torch._foreach_copy_(list(high[: len(self.mine)].unbind()), self.mine)
        _advance_(high, self.state["mantissa"], update, self.config.decay.formula, *self.rates(lr, decay).tensors())
        return self.world.start_all_gather(high)

    def apply(self, gathered: Tensor, lr: float, decay: float) -> None:
        torch._foreach_copy_(self.params, list(gathered[: len(self.params)].unbind()))
