"""The root of every recipe's configuration, and the registry that recipes and tracks join."""

from underpar.compress.codecs import Codec, Zlib
from underpar.compress.quantise import Int8PerRow, Quantiser
from underpar.core.budget import Budget
from underpar.core.config import Config, NonNegativeInt, PositiveFloat, PositiveInt, config, field
from underpar.core.errors import ConfigError
from underpar.core.recipe import Registry
from underpar.core.units import GOLF_ARTIFACT_BYTES
from underpar.data.loaders import Loader, SequentialRows
from underpar.data.tokenizers import SentencePiece, TokenizerConfig
from underpar.evaluate.adaptation import Adaptation
from underpar.evaluate.windows import Flat, Window
from underpar.model.gpt import GPTConfig
from underpar.nn.fake_quantise import FakeQuantiser
from underpar.nn.rope import WindowRope
from underpar.optim.averaging import Averaging
from underpar.optim.partition import Optim
from underpar.optim.schedules import Schedule
from underpar.optim.stages import StageTable
from underpar.train.calibration import CalibrationText, TrainingText
from underpar.train.training import Training

VOCAB_MULTIPLE = 128
"""Models may round the vocabulary up to a multiple of this, which matrix products are fast at; the rest is never a target."""


@config
class Data(Config):
    """Which tokens, and how a step's are cut from them."""

    tokenizer: TokenizerConfig = field(default_factory=lambda: SentencePiece(vocab_size=1024))
    """Must agree with the prepared shards."""
    bundled: bool = False
    """Use the text that ships with the package, prepared on first use; otherwise a folder of prepared shards is needed."""
    loader: Loader = field(default_factory=SequentialRows)


@config
class Packing(Config):
    """Weights to artifact."""

    quantiser: Quantiser = field(default_factory=Int8PerRow)
    codec: Codec = field(default_factory=Zlib)
    calibration: CalibrationText = field(default_factory=TrainingText)
    """What a quantiser with Hessians looks at."""
    calibration_tokens: PositiveInt = 1_572_864
    """How many tokens of it; the records take 16 batches of 98,304."""


@config
class Evaluation(Config):
    """How the held-out text is scored."""

    window: Window = field(default_factory=Flat)
    adaptation: Adaptation | None = None
    """How the packed model learns while it is scored; the window then serves validation and the score before adaptation."""
    batch_tokens: PositiveInt = 65_536
    """Tokens of one forward pass; no influence on the score beyond rounding."""
    first_tokens: PositiveInt | None = None
    """Held-out tokens that count, from the start of the text; None is all."""
    target_nats: PositiveFloat | None = None
    """Loss on the held-out text that a run is timed to; None packs and scores an artifact instead."""


@config
class Recipe(Config):
    """Everything that can change a number."""

    seed: NonNegativeInt = 1337
    budget: Budget = field(
        default_factory=lambda: Budget(train_seconds=600.0, eval_seconds=600.0, artifact_bytes=GOLF_ARTIFACT_BYTES)
    )
    data: Data = field(default_factory=Data)
    model: GPTConfig = field(default_factory=GPTConfig)
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    averaging: Averaging | None = None
    """Weights that are scored and packed instead of the last ones."""
    fake_quantise: FakeQuantiser | None = None
    """Quantisation-aware training: the grid that hidden matrices meet while `schedule.fake_quantise` is on."""
    train: Training = field(default_factory=Training)
    pack: Packing = field(default_factory=Packing)
    evaluate: Evaluation = field(default_factory=Evaluation)

    def check(self) -> None:
        tokens = self.data.tokenizer.vocab_size
        padded = -(-tokens // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
        if self.model.vocab_size not in (tokens, padded):
            raise ConfigError(
                f"model.vocab_size = {self.model.vocab_size}, but data.tokenizer has {tokens} tokens (padded: {padded})"
            )
        self.pack.calibration.check_loader(self.data.loader)
        if self.schedule.stages is not None:
            self._check_stages(self.schedule.stages)

    def _check_stages(self, stages: StageTable) -> None:
        stages.scheduled(self.budget)
        for stage in stages.rows:
            self.data.loader.shaped(stage.shape)
        rope, grown = self.model.attention.rope, stages.long_windows()
        if isinstance(rope, WindowRope) and rope.windows != grown:
            raise ConfigError(
                f"model.attention.rope stretches for long windows of {rope.windows} tokens, schedule.stages goes through "
                f"{grown}; write the same into both"
            )
        if self.model.attention.windows is None and any(s.short_window != s.long_window for s in stages.rows):
            raise ConfigError(
                "schedule.stages has windows, but model.attention.windows is None: nothing would obey them"
            )


registry: Registry[Recipe] = Registry(Recipe)
recipe = registry.recipe
track = registry.track
