"""Tracks: the budget a recipe is run at. Applied after the recipe, before the command line's overrides."""

from underpar.core.errors import ConfigError
from underpar.core.units import GOLF_ARTIFACT_BYTES
from underpar.data.aligned import AlignedDocuments
from underpar.data.tokenizers import SentencePiece
from underpar.evaluate.adaptation import PhasedTTT
from underpar.nn.lookback import BigramTable
from underpar.nn.rope import WindowRope
from underpar.optim.averaging import EMA, SWA
from underpar.optim.schedules import WarmdownSteps
from underpar.recipes.base import Recipe, track

SPEEDRUN_VAL_TOKENS = 10_485_760


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
    that share. Calibration reads a third of the text, in the seconds that the recipe keeps for it. Phases of test-time
    training count documents: of the 50,000 of a record's text here are 421.
    """
    r.budget.train_seconds, r.budget.eval_seconds = 300.0, 300.0
    r.budget.artifact_bytes = GOLF_ARTIFACT_BYTES
    r.pack.calibration_tokens //= 3
    if isinstance(r.evaluate.adaptation, PhasedTTT):
        r.evaluate.adaptation.prefix_documents = r.evaluate.adaptation.prefix_documents * 421 // 50_000
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


@track("speedrun-small")
def speedrun_small(r: Recipe) -> None:
    """8xH100: the shortest time to a mean loss of 3.28 on the first 10,485,760 tokens of FineWeb's validation split.

    A recipe runs as it is; fewer GPUs take longer over the same steps. Source: the rules of modded-nanogpt, short track.
    """
    r.evaluate.first_tokens, r.evaluate.target_nats = SPEEDRUN_VAL_TOKENS, 3.28


@track("speedrun-mini")
def speedrun_mini(r: Recipe) -> None:
    """One Hopper GPU, your own text in GPT-2 tokens: each step is one of a record's eight shares, and there are twice as many.

    Batches shrink to an eighth; learning rates, windows and shares of the stages are the recipe's. Momentum's warm-up and
    cool-down are counted in steps and double with them. Text may be gone through four times.
    """
    scale_batches(r, 8)
    scale_stages(r, 2.0)
    if isinstance(r.data.loader, AlignedDocuments):
        r.data.loader.epochs = 4


@track("speedrun-toy")
def speedrun_toy(r: Recipe) -> None:
    """A CPU: the bundled text, a hundredth of the model, sequences and windows a thirty-second as long; a minute of training.

    Every component, every stage and every schedule of a record is there; nothing can be said of its speed.
    """
    shorter, fewer_steps = 32, 40
    r.data.bundled, r.data.tokenizer = True, SentencePiece(vocab_size=1024)
    model = r.model
    model.vocab_size, model.model_dim = 1024, 96
    if isinstance(model.bigram, BigramTable):
        model.bigram.buckets = 5 * model.vocab_size
    if model.attention.windows is not None:
        model.attention.windows.short //= shorter
        model.attention.windows.long //= shorter
    if isinstance(model.attention.rope, WindowRope):
        model.attention.rope.windows = tuple(size // shorter for size in model.attention.rope.windows)
    scale_batches(r, 256)
    r.data.loader.spans = 2  # so that two processes can share a step
    if r.schedule.stages is not None:
        r.schedule.stages.window_block //= shorter
        for stage in r.schedule.stages.rows:
            stage.seq_len //= shorter
    else:
        r.data.loader.seq_len //= shorter
    scale_stages(r, 1 / fewer_steps)
    r.train.warmup_steps, r.train.validate_every_steps = 1, 0
    r.evaluate.window.context = r.evaluate.batch_tokens = 256


def scale_batches(r: Recipe, divisor: int) -> None:
    """Divide the tokens of every step, and of the spans that it is made of once they would be too short to share."""
    if divisor >= r.data.loader.spans:
        r.data.loader.spans = max(1, r.data.loader.spans // divisor)
    if r.schedule.stages is None:
        r.data.loader.batch_tokens //= divisor
        return
    for stage in r.schedule.stages.rows:
        stage.batch_tokens //= divisor


def scale_stages(r: Recipe, factor: float) -> None:
    """Multiply the steps of a run, an extension's among them, and what the recipe counts in steps."""
    extension = 0 if r.schedule.stages is None else r.schedule.stages.extension_steps
    if r.budget.train_steps is None:
        raise ConfigError("a track that counts in steps needs a recipe that does: budget.train_steps is None")
    scheduled = r.budget.train_steps - extension
    if r.schedule.stages is not None and extension:
        r.schedule.stages.extension_steps = extension = max(1, round(extension * factor))
    r.budget.train_steps = round(scheduled * factor) + extension
    r.schedule.momentum.cooldown_steps = round(r.schedule.momentum.cooldown_steps * factor)
    scale_steps(r, factor)
