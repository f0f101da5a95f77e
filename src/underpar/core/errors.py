"""The errors a user can meet. Each message says what, the value, the limit and the next step, in one line.

The command line prints them without a traceback. `assert` stays for our own invariants.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class UnderparError(Exception):
    """Base of every error that is the user's to mend."""


class ConfigError(UnderparError):
    """A recipe, an override or a combination of settings is wrong."""


class DataError(UnderparError):
    """Text, tokens or shards are missing, damaged or do not fit the recipe."""


class Exhausted(DataError):
    """The training text ends before the budget. Every process meets it at the same step."""


class TrainError(UnderparError):
    """Training cannot go on: a non-finite loss, a damaged checkpoint."""


class Interrupted(TrainError):
    """Somebody asked the run to end. A checkpoint is written; the same command goes on."""


class ArtifactError(UnderparError):
    """An artifact is damaged, hostile, of another kind, or over its byte budget."""


class ScoreError(UnderparError):
    """A score would be wrong: a token scored twice or never, bytes that do not add up."""


class RecordError(UnderparError):
    """A record folder cannot be written or read."""


LISTED = 12
"""Names that a message lists before it only counts."""


def suggest(name: str, valid: Iterable[str]) -> str:
    """The tail of an unknown-name message: the nearest valid name, or when none is near the first dozen."""
    options = sorted(valid)
    near = get_close_matches(name, options, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    if not options:
        return "nothing is valid here"
    more = f" and {len(options) - LISTED} more" if len(options) > LISTED else ""
    return f"valid: {', '.join(options[:LISTED])}{more}"
