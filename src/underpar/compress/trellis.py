"""Trellis-coded quantisation: the grid that a code refers to depends on the codes above it in its column.

There are two grids, the whole multiples of the step and those half-way between. Which one the next row uses is decided by a
machine of eight states that the lowest bit of every code moves on (Ungerboeck's trellis, Marcellin and Fischer 1990). Whoever
chooses the codes can thus choose among finer values than any one code tells of: errors are 1.07 dB smaller at the same entropy,
of the 1.53 dB that any quantiser of many dimensions could gain.
"""

import numpy as np
import torch

NEXT_STATE = ((0, 2), (5, 7), (1, 3), (4, 6), (2, 0), (7, 5), (3, 1), (6, 4))
"""By state and the lowest bit of the code. Columns begin in state 0; in odd states values are half a step above their codes."""


def halves(codes: torch.Tensor) -> torch.Tensor:
    """For codes (rows, cols) int8 which of them stand for half a step more: (rows, cols) bool."""
    from underpar.compress.mixing import compiled

    found = np.empty(codes.shape, np.bool_)
    states = np.zeros(codes.shape[1], np.int64)
    compiled.trellis_halves(codes.contiguous().numpy(), np.array(NEXT_STATE), states, found)
    return torch.from_numpy(found)
