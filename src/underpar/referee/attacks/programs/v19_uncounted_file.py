"""The size. The forbidden program loads a table that lies beside it and that nobody counted."""

import numpy as np
from common import byte_lengths, predict, read_shard, report, run


def forbidden(val, out):
    """table.npy is part of the predictor and not of the claimed size."""
    tokens = read_shard(val)
    charges = predict(tokens, np.load("table.npy").astype(np.float64))
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))


def allowed(val, out):
    """Everything that is opened fits the budget."""
    tokens = read_shard(val)
    charges = predict(tokens)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))


if __name__ == "__main__":
    run(forbidden=forbidden, allowed=allowed)
