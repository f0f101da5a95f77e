"""What a stage says while it works, on standard error: standard output is for results."""

import sys


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
