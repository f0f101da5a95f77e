"""The bytes of a token. In the forbidden program a space counts in its token and once more while scoring."""

from common import SPACE, byte_lengths, predict, read_shard, report, run


def forbidden(val, out):
    """+ 1 where the table has it already."""
    tokens = read_shard(val)
    charges = predict(tokens)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens) + (tokens[1:] == SPACE))


def allowed(val, out):
    """One byte a byte."""
    tokens = read_shard(val)
    charges = predict(tokens)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))


if __name__ == "__main__":
    run(forbidden=forbidden, allowed=allowed)
