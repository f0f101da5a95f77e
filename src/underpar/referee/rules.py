"""The rules that a check enforces, and how firmly each of them stands.

A broken official rule makes a result invalid. A broken convention, or a rule on which no ruling was found, makes it disputed:
the tool shows what it measured and leaves the judgement to people.
"""

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """How firmly a rule stands."""

    OFFICIAL = "O"
    """Written in the README of the game or stated by a maintainer."""
    COMMUNITY = "C"
    """A convention among participants."""
    DISPUTED = "D"
    """Argued about; no final ruling was found."""


@dataclass(frozen=True)
class Rule:
    """One rule: a short id, its words, its mark and where it comes from."""

    id: str
    mark: Mark
    text: str
    source: str


GOLF_README = "openai/parameter-golf README"
MAINTAINERS = "openai/parameter-golf #1017, conditions that maintainers cite"

SCORE = Rule(
    "G1", Mark.OFFICIAL, "The score is bits per byte of the raw text of the whole held-out split.", GOLF_README
)
SIZE = Rule("G2", Mark.OFFICIAL, "Compressed model plus code stay within the byte budget (decimal bytes).", GOLF_README)
CLOSED = Rule(
    "G4",
    Mark.OFFICIAL,
    "Scoring uses the artifact and the held-out text only: no network, no training data, nothing undeclared.",
    GOLF_README,
)
TOKENIZER = Rule(
    "G9", Mark.OFFICIAL, "A tokenizer of one's own needs proof that bits per byte are computed correctly.", GOLF_README
)
REPRODUCIBLE = Rule("G17", Mark.OFFICIAL, "A result that cannot be reproduced can be removed.", GOLF_README)
CAUSAL = Rule(
    "C1", Mark.OFFICIAL, "The probability of a token depends on the artifact and on earlier tokens only.", MAINTAINERS
)
NORMALISED = Rule(
    "C2",
    Mark.OFFICIAL,
    "Before a token is seen there is one distribution over all tokens, and it sums to 1.",
    MAINTAINERS,
)
SINGLE_PASS = Rule("C4", Mark.OFFICIAL, "Every token is charged exactly once, in one pass.", MAINTAINERS)
LOSSLESS = Rule(
    "C5",
    Mark.DISPUTED,
    "The text can be recovered exactly from the scored tokens.",
    "openai/parameter-golf #1578 and #1604: which normalisations are allowed was asked and not answered",
)

RULES: tuple[Rule, ...] = (
    SCORE, SIZE, CLOSED, TOKENIZER, REPRODUCIBLE, CAUSAL, NORMALISED, SINGLE_PASS, LOSSLESS,
)  # fmt: skip
"""Every rule that a check refers to."""
