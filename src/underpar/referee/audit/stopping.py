"""The step that a result of the optimiser track stands on: the first common one at which all its runs together pass.

The rules allow it to be chosen afterwards, on the grid of the validations, if it is the same for all runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from underpar.referee.audit.facts import Score
from underpar.referee.audit.runs import Run

MARGIN = 0.004
"""(target - mean) x sqrt(n): a z-test with sd 0.0013 at p < 0.001."""


def at_stopping_step(runs: Sequence[Run], target_nats: float) -> list[Run]:
    """The runs with their scores at that step; with their last ones where no step passes or a run is cut off."""
    tables = [_losses(run) for run in runs]
    if not runs or any(run.score is None for run in runs):
        return list(runs)
    common = sorted(set.intersection(*(set(table) for table in tables)))
    for step in common:
        losses = [float(table[step].loss or "nan") for table in tables]
        if (target_nats - statistics.fmean(losses)) * len(losses) ** 0.5 >= MARGIN - 1e-12:
            return [replace(run, score=table[step]) for run, table in zip(runs, tables, strict=True)]
    return list(runs)


def _losses(run: Run) -> dict[int, Score]:
    """Step -> validation of a run."""
    return {score.step: score for score in run.block.periodic if score.step is not None and score.loss is not None}
