"""Tracks: the budget a recipe is run at. Applied after the recipe, before the command line's overrides."""

from underpar.core.units import GOLF_ARTIFACT_BYTES
from underpar.optim.schedules import WarmdownSteps
from underpar.recipes.base import Recipe, track


@track("golf-record")
def golf_record(r: Recipe) -> None:
    """8xH100: 600 s of training, 600 s of evaluation, 16,000,000 bytes with code. Source: the rules of the 16 MB game."""
    r.budget.train_seconds, r.budget.eval_seconds = 600.0, 600.0
    r.budget.artifact_bytes = GOLF_ARTIFACT_BYTES


@track("golf-mini")
def golf_mini(r: Recipe) -> None:
    """One Hopper GPU: 300 s of training, 300 s of evaluation, 16,000,000 bytes with code.

    The batch becomes a quarter of the recipe's (at most 131,072 tokens), which gives about a quarter of the record's number
    of steps; momentum warm-up and warm-down, both counted in steps, shrink by the same quarter.
    """
    r.budget.train_seconds, r.budget.eval_seconds = 300.0, 300.0
    r.budget.artifact_bytes = GOLF_ARTIFACT_BYTES
    r.data.loader.batch_tokens = 131_072
    r.schedule.momentum.steps //= 4
    if isinstance(r.schedule.learning_rate, WarmdownSteps):
        r.schedule.learning_rate.steps //= 4


@track("golf-cpu")
def golf_cpu(r: Recipe) -> None:
    """Two CPU cores: minutes of training on a model of about a million parameters; 1,000,000 bytes with code."""
    r.budget.train_seconds, r.budget.eval_seconds = 90.0, 60.0
    r.budget.artifact_bytes = 1_000_000
