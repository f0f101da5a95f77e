"""The first documents are held out. The forbidden preparation holds out fewer than are scored, so that the others
are trained on."""

SCORED = 50
"""Documents of the published held-out split; 50,000 in the game."""


def forbidden(documents: list[str]) -> tuple[list[str], list[str]]:
    """(training, held-out) documents: a default of another preparation, 10 where 50 are scored."""
    held_out = 10
    return documents[held_out:], documents[:SCORED]


def allowed(documents: list[str]) -> tuple[list[str], list[str]]:
    """(training, held-out) documents, with one number for both."""
    return documents[SCORED:], documents[:SCORED]
