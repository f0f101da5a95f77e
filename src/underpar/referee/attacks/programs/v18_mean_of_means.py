"""The mean. The forbidden program averages the means of its batches, the last of which is short."""

from common import byte_lengths, predict, read_shard, report, run

BATCH = 3000


def forbidden(val, out):
    """A short last batch weighs as much as a full one."""
    tokens = read_shard(val)
    charges = predict(tokens)
    charges.tofile(out)
    means = [charges[start : start + BATCH].mean() for start in range(0, len(charges), BATCH)]
    report(charges, sum(means) / len(means), byte_lengths(tokens))


def allowed(val, out):
    """The sum over the number."""
    tokens = read_shard(val)
    charges = predict(tokens)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))


if __name__ == "__main__":
    run(forbidden=forbidden, allowed=allowed)
