"""The clock. The forbidden program does its slow part before it starts its own."""

import time

from common import byte_lengths, predict, read_shard, report, run

SECONDS_PER_TOKEN = 0.004


def forbidden(val, out):
    """The printed time is true, and leaves out most of it."""
    tokens = read_shard(val)
    time.sleep(SECONDS_PER_TOKEN * len(tokens))  # a table of hints over the whole text, say
    began = time.perf_counter()
    charges = predict(tokens)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))
    print(f"eval_time:{1000 * (time.perf_counter() - began):.0f}ms")


def allowed(val, out):
    """Nothing is done that takes long."""
    tokens = read_shard(val)
    began = time.perf_counter()
    charges = predict(tokens)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))
    print(f"eval_time:{1000 * (time.perf_counter() - began):.0f}ms")


if __name__ == "__main__":
    run(forbidden=forbidden, allowed=allowed)
