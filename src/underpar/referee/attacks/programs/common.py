"""What the programs share: reading a shard, an honest predictor, and the line that a score is printed in."""

import sys

import numpy as np

SPACE, FIRST_BYTE, FIRST_NOT_ASCII = 36, 4, 132
"""Ids of the byte tokenizer: byte b is b + 4."""


def read_shard(path):
    """The tokens of a shard in the field's format: 1,024 bytes of header, then uint16."""
    return np.fromfile(path, dtype="<u2")[512:].astype(np.int64)


def predict(tokens, counts=None):
    """Charges in nats of bigram counts that grow behind each charge."""
    counts = np.full((260, 260), 0.05) if counts is None else counts
    totals, charges = counts.sum(axis=1), []
    for token, following in zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True):
        charges.append(np.log(totals[token] / counts[token, following]))
        counts[token, following] += 1.0
        totals[token] += 1.0
    return np.array(charges)


def byte_lengths(tokens):
    """Bytes of each charged token: one, or none for a special id."""
    return (tokens[1:] >= FIRST_BYTE).astype(np.int64)


def report(charges, loss, lengths):
    """Print a score as published scripts do."""
    bpb = loss * len(charges) / np.log(2.0) / lengths.sum()
    print(f"val_tokens:{len(charges)} val_loss:{loss:.8f} val_bpb:{bpb:.8f}")


def run(**functions):
    """`python FILE forbidden|allowed SHARD CHARGES`"""
    functions[sys.argv[1]](*sys.argv[2:])
