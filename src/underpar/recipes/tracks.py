"""Tracks: the budget a recipe is run at. Applied after the recipe, before the command line's overrides."""

from underpar.core.units import GOLF_ARTIFACT_BYTES
from underpar.optim.averaging import EMA, SWA
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

    A record has 4,800 GPU-seconds, so a sixteenth of its tokens fit. The batch becomes 131,072 tokens; what a recipe counts
    in steps shrinks with the number of steps, 1/16 over the share of the batch; learning rates shrink by the cube root of
    that share. Calibration reads a third of the text, in the seconds that the recipe keeps for it.
    """
    r.budget.train_seconds, r.budget.eval_seconds = 300.0, 300.0
    r.budget.artifact_bytes = GOLF_ARTIFACT_BYTES
    r.pack.calibration_tokens //= 3
    batch_share = 131_072 / r.data.loader.batch_tokens
    r.data.loader.batch_tokens = 131_072
    scale_steps(r, 1 / 16 / batch_share)
    for chosen in (r.optim.matrix, r.optim.embedding, r.optim.head, r.optim.gain, r.optim.gate):
        if chosen is not None:
            chosen.lr = float(f"{chosen.lr * batch_share ** (1 / 3):.3g}")


def scale_steps(r: Recipe, factor: float) -> None:
    """Stretch or shrink everything that the recipe counts in steps."""
    r.schedule.momentum.steps = round(r.schedule.momentum.steps * factor)
    if isinstance(r.schedule.learning_rate, WarmdownSteps):
        r.schedule.learning_rate.steps = max(1, round(r.schedule.learning_rate.steps * factor))
    match r.averaging:
        case EMA() as average:
            average.decay = round(1.0 - (1.0 - average.decay) / factor, 5)
        case SWA() as average:
            average.every = max(1, round(average.every * factor))


@track("golf-cpu")
def golf_cpu(r: Recipe) -> None:
    """Two CPU cores: minutes of training on a model of about a million parameters; 1,000,000 bytes with code."""
    r.budget.train_seconds, r.budget.eval_seconds = 90.0, 60.0
    r.budget.artifact_bytes = 1_000_000
