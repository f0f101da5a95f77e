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
SPEEDRUN_README = "modded-nanogpt README"

O, C, D = Mark.OFFICIAL, Mark.COMMUNITY, Mark.DISPUTED  # noqa: E741

SCORE = Rule("G1", O, "The score is bits per byte of the raw text of the whole held-out split.", GOLF_README)
SIZE = Rule("G2", O, "Compressed model plus code stay within the byte budget (decimal bytes).", GOLF_README)
TIME = Rule("G3", O, "Training and evaluation each have their own limit of wall-clock seconds.", GOLF_README)
CLOSED = Rule(
    "G4",
    O,
    "Scoring uses the artifact and the held-out text only: no network, no training data, nothing undeclared.",
    GOLF_README,
)
HELD_OUT = Rule(
    "G5",
    O,
    "No held-out data takes part in training, in any form: weights, tables, prefixes, calibration.",
    "openai/parameter-golf #168, #262 and #275, maintainers",
)
ADAPT_AFTER = Rule(
    "G6",
    O,
    "Test-time training uses only tokens whose charge is already final.",
    "openai/parameter-golf #402, #568 and #677, maintainers",
)
TOKENIZER = Rule(
    "G9", O, "A tokenizer of one's own needs proof that bits per byte are computed correctly.", GOLF_README
)
SIGNIFICANT = Rule(
    "G10", O, "A record is better than the best one by 0.005 nats at p < 0.01; pure speedups are exempt.", GOLF_README
)
NO_BRUTE_FORCE = Rule(
    "G13", O, "No search over seeds and no hidden extra compute; where tuning ends is not drawn sharply.", GOLF_README
)
PACKAGE = Rule(
    "G14", O, "A record is one folder with README, submission.json, logs and the script that made them.", GOLF_README
)
CALIBRATION = Rule(
    "G15",
    O,
    "Data that calibrates quantisation is read within the training time, or made by the model itself.",
    "openai/parameter-golf #593, #609 and #1019, maintainers",
)
ISOLATED = Rule(
    "G16",
    D,
    "A look-back of one token does not read across the start of a document.",
    "openai/parameter-golf #1797, an audit note of a maintainer; #1988 objects that this is no matter of causality",
)
REPRODUCIBLE = Rule("G17", O, "A result that cannot be reproduced can be removed.", GOLF_README)

CAUSAL = Rule("C1", O, "The probability of a token depends on the artifact and on earlier tokens only.", MAINTAINERS)
NORMALISED = Rule(
    "C2", O, "Before a token is seen there is one distribution over all tokens, and it sums to 1.", MAINTAINERS
)
SCORE_FIRST = Rule("C3", O, "The charge of a token is final before any state that depends on it changes.", MAINTAINERS)
SINGLE_PASS = Rule("C4", O, "Every token is charged exactly once, in one pass.", MAINTAINERS)
IN_ORDER = Rule(
    "C4a",
    D,
    "Documents are scored in the order of the text, and nothing of later ones is known before, not even their lengths.",
    "openai/parameter-golf #1017, condition 4 (one pass from left to right); merged records from #1530 on score the longest "
    "documents first, and no ruling was found",
)
LOSSLESS = Rule(
    "C5",
    D,
    "The text can be recovered exactly from the scored tokens.",
    "openai/parameter-golf #1578 and #1604: which normalisations are allowed was asked and not answered",
)

ATTRIBUTED = Rule(
    "A1", C, "What a record claims to change is active in the run that is shown.", "convention of both games"
)
SPEEDRUN = Rule(
    "S1",
    O,
    "Untimed work, other token streams and hand-picked runs do not count towards a speedrun.",
    f"{SPEEDRUN_README}, rules of the tracks; modded-nanogpt #80 and #205",
)

RULES: tuple[Rule, ...] = (
    SCORE, SIZE, TIME, CLOSED, HELD_OUT, ADAPT_AFTER, TOKENIZER, SIGNIFICANT, NO_BRUTE_FORCE, PACKAGE, CALIBRATION,
    ISOLATED, REPRODUCIBLE, CAUSAL, NORMALISED, SCORE_FIRST, SINGLE_PASS, IN_ORDER, LOSSLESS, ATTRIBUTED, SPEEDRUN,
)  # fmt: skip
"""Every rule that a check or a class refers to."""
