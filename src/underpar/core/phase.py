"""What of the forward pass changes while a model trains."""

from typing import NamedTuple


class Phase(NamedTuple):
    """Chosen by the schedule, obeyed by the model. Every value that a run can meet is compiled before its clock starts."""

    looped: bool = True
    """Whether recurrent layers run all their passes; off, each layer of the plan runs once."""
    quantised: bool = False
    """Whether matrices pass through the fake quantiser on their way to a product."""


EVALUATION = Phase()
"""Scoring, calibration and adaptation see the whole plan and the weights as they are."""
