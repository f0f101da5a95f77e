"""How a column of values becomes codes once its steps are known."""

from typing import Any, ClassVar

import numpy as np
import torch

from underpar.compress.trellis import NEXT_STATE
from underpar.core.config import Config, config


class Rounding(Config):
    """Base of the roundings."""

    method: ClassVar[str] = ""
    """The name, in an artifact, of the grid that the codes refer to."""

    def choose(self, values: torch.Tensor, high: int) -> tuple[torch.Tensor, torch.Tensor]:
        """values: (batch, rows) in units of the steps. Returns codes within +-high, int8, and the values they stand for."""
        raise NotImplementedError


@config
class Nearest(Rounding):
    """The nearest code, half to even."""

    method: ClassVar[str] = "grid"

    def choose(self, values: torch.Tensor, high: int) -> tuple[torch.Tensor, torch.Tensor]:
        found = values.round().clamp_(-high, high)
        return found.to(torch.int8), found


@config
class Trellis(Rounding):
    """The codes of least squared error that the trellis allows, by the Viterbi algorithm down each column, on the CPU.

    See `compress.trellis`. Cost: about 0.05 microseconds a weight.
    """

    method: ClassVar[str] = "trellis"

    def choose(self, values: torch.Tensor, high: int) -> tuple[torch.Tensor, torch.Tensor]:
        from underpar.compress import viterbi

        wanted = values.detach().double().cpu().numpy()
        codes, found = np.empty(wanted.shape, np.int8), np.empty(wanted.shape, np.float32)
        machine: Any = np.array(NEXT_STATE)
        viterbi.best_paths(wanted, machine, codes, found, high)
        return torch.from_numpy(codes).to(values.device), torch.from_numpy(found).to(values)
