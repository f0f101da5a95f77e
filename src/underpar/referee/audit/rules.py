"""Conventions that a record folder can be held to by reading it, beside the rules that every tool of the referee shares."""

from __future__ import annotations

from underpar.referee.rules import SPEEDRUN_README, Mark, Rule

COUNTED = Rule(
    "G2", Mark.DISPUTED, "All counted code is in the training script; how files that it runs count was never settled.",
    "openai/parameter-golf README; #122, #210, #847, #1412, #1514",
)  # fmt: skip
FIGURES = Rule(
    "E1", Mark.COMMUNITY, "Every stated figure can be found in the log of the run that it is stated of.",
    "reviews in openai/parameter-golf #561, #1477, #2058 and #2071",
)  # fmt: skip
MEAN = Rule(
    "E2", Mark.COMMUNITY, "The score is the mean over the runs that are shown, not the best of them.",
    "practice in both games: p < 0.01 over runs",
)  # fmt: skip
ADMINISTERED = Rule(
    "G11", Mark.OFFICIAL, "As administered: a one-sided Welch test against the row before, p < 0.25.",
    "openai/parameter-golf #1902",
)  # fmt: skip
TARGET = Rule(
    "S2", Mark.OFFICIAL, "The mean validation loss meets the target at p < 0.01, one-sided, over the runs shown.",
    SPEEDRUN_README,
)  # fmt: skip
COMPLETE_LOGS = Rule(
    "S3", Mark.OFFICIAL, "Each run is shown by its own complete log, with the source that it ran.", SPEEDRUN_README
)
SAME_MACHINE = Rule(
    "S4", Mark.OFFICIAL, "A record is faster than the one before when both are timed on one machine.", SPEEDRUN_README
)
STEPS = Rule(
    "T2", Mark.OFFICIAL, "(3.28 - mean) x sqrt(n) >= 0.004 over all runs, which stop at the same step.",
    "modded-nanogpt, track 3",
)  # fmt: skip
PAIRWISE = Rule(
    "T5", Mark.OFFICIAL, "(loss saved + 0.0045 per 100 steps saved) / sqrt(1/n1 + 1/n2) >= 0.004 against an older result.",
    "modded-nanogpt, track 3",
)  # fmt: skip
