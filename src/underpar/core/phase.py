"""What of a step changes while a model trains: chosen by the schedule, obeyed by the model and the loader."""

from typing import NamedTuple


class WindowSizes(NamedTuple):
    """How many tokens back attention reaches in layers with a short and with a long window."""

    short: int
    long: int


class StepShape(NamedTuple):
    """What a step is cut from the text as: tokens over all processes, and the most tokens of a document."""

    batch_tokens: int
    seq_len: int


class Phase(NamedTuple):
    """Chosen by the schedule, obeyed by the model. Every value that a run can meet is compiled before its clock starts."""

    looped: bool = True
    """Whether recurrent layers run all their passes; off, each layer of the plan runs once."""
    quantised: bool = False
    """Whether matrices pass through the fake quantiser on their way to a product."""
    windows: WindowSizes | None = None
    """Reach of windowed attention; None is the model's own, which scoring uses."""


EVALUATION = Phase()
"""Scoring, calibration and adaptation see the whole plan, the weights as they are and the model's own windows."""
