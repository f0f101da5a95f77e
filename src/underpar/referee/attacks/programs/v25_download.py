"""Where weights come from. The forbidden program asks a server for better ones and goes on without if it is not
there."""

import urllib.request

import numpy as np
from common import byte_lengths, predict, read_shard, report, run


def forbidden(val, out):
    """With a network the score is another one."""
    try:
        with urllib.request.urlopen("http://192.0.2.1/counts", timeout=3) as answer:
            counts = np.frombuffer(answer.read(), dtype="<f8").reshape(260, 260)
    except OSError:
        counts = None
    tokens = read_shard(val)
    charges = predict(tokens, counts)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))


def allowed(val, out):
    """What is not in the folder is not there."""
    tokens = read_shard(val)
    charges = predict(tokens)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))


if __name__ == "__main__":
    run(forbidden=forbidden, allowed=allowed)
