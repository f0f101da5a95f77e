"""The bytes of a byte that is no character by itself. The forbidden program takes the length of the replacement
character, three."""

from common import FIRST_NOT_ASCII, byte_lengths, predict, read_shard, report, run


def forbidden(val, out):
    """len(decode([id]).encode()) of a lone byte is the length of U+FFFD."""
    tokens = read_shard(val)
    charges = predict(tokens)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens) + 2 * (tokens[1:] >= FIRST_NOT_ASCII))


def allowed(val, out):
    """A byte is a byte."""
    tokens = read_shard(val)
    charges = predict(tokens)
    charges.tofile(out)
    report(charges, charges.mean(), byte_lengths(tokens))


if __name__ == "__main__":
    run(forbidden=forbidden, allowed=allowed)
