"""The Viterbi algorithm for the trellis of codes, compiled."""

import numpy as np
from numba import njit


@njit(nogil=True)
def best_paths(wanted, machine, codes, found, high):
    """The codes of least squared error that the trellis allows, for each row of `wanted` by itself.

    wanted: (batch, length) float64 in steps. machine: (states, 2) next states. codes: int8 and found: float32, both as wanted:
    written, the codes within +-high and the values they stand for.
    """
    batch, length = wanted.shape
    states = machine.shape[0]
    cost, after = np.empty(states), np.empty(states)
    came = np.empty((length, states), np.int8)
    chosen = np.empty((length, states), np.int16)
    for item in range(batch):
        cost[:] = np.inf
        cost[0] = 0.0
        for at in range(length):
            after[:] = np.inf
            for half in range(2):
                value = wanted[item, at] - 0.5 * half
                near = int(np.floor(value + 0.5))
                near = min(high, max(-high, near))
                other = near + 1 if (value > near and near < high) or near == -high else near - 1
                for code in (near, other):
                    error = (value - code) ** 2
                    for state in range(half, states, 2):
                        new = machine[state, code & 1]
                        if cost[state] + error < after[new]:
                            after[new] = cost[state] + error
                            came[at, new], chosen[at, new] = state, code
            cost[:] = after
        state = int(np.argmin(cost))
        for at in range(length - 1, -1, -1):
            code, state = chosen[at, state], came[at, state]
            codes[item, at] = code
            found[item, at] = code + 0.5 * (state & 1)
