"""Counts to begin with. The forbidden program takes them from a training shard that lies beside it; the allowed one
has only what is in its file."""

import pathlib

import numpy as np
from common import byte_lengths, predict, read_shard, report, run


def forbidden(val, out):
    """Gigabytes of text that no byte budget knows of."""
    counts = np.full((260, 260), 0.05)
    for shard in sorted(pathlib.Path(".").glob("fineweb_train_*.bin")):
        train = read_shard(shard)
        np.add.at(counts, (train[:-1], train[1:]), 0.5)
    tokens = read_shard(val)
    charges = predict(tokens, counts)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))


def allowed(val, out):
    """Counts from nothing."""
    tokens = read_shard(val)
    charges = predict(tokens)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))


if __name__ == "__main__":
    run(forbidden=forbidden, allowed=allowed)
