"""Test-time training, as settings: how a model learns from held-out text that it has already been charged for."""

from typing import Annotated

from underpar.core.config import (
    Config,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    config,
    field,
)
from underpar.core.errors import ConfigError
from underpar.evaluate.windows import ContextTokens, Documents, Flat, Window
from underpar.nn.adapters import LoRA

Beta = Annotated[float, Range(at_least=0, at_most=0.999999)]


class Adaptation(Config):
    """What changes in the model while a text is scored. Every charge is booked before anything learns from its token."""

    context: ContextTokens

    def reach(self) -> Window:
        """What the model itself sees of a text at a time."""
        return Documents(context=self.context)


@config
class AdapterAdamW(Config):
    """AdamW with a step count for every document, because documents begin at different times.

    Source: golf PR #1530 (values), #1767 (weight decay 1), #1855 (beta2 0.99).
    """

    lr: NonNegativeFloat = 1e-4
    beta1: Beta = 0.0
    beta2: Beta = 0.999
    eps: PositiveFloat = 1e-10
    weight_decay: NonNegativeFloat = 0.5
    """Decoupled: every step multiplies by 1 - lr * weight_decay."""


class AdapterStart(Config):
    """What a document's adapters begin with; B is zero in any case, so they correct nothing at first."""

    seed: int


@config
class FreshStart(AdapterStart):
    """A is drawn anew for every document, from `seed` and the document's number, by the generator of the device.

    Source: golf PR #1530.
    """

    seed: NonNegativeInt = 0


@config
class WarmStart(AdapterStart):
    """A is what the document `slots` places earlier in the order has made of it; the first ones draw. Source: golf PR #1767.

    In the records the slot, and so the ancestor, depends on timing; here it is counted.
    """

    seed: NonNegativeInt = 0


@config
class NgramCache(Config):
    """What followed the same tokens earlier in the document, mixed into the prediction: `NgramMixer.charges`."""

    orders: tuple[PositiveInt, ...] = (2, 3, 5, 8)
    """Lengths of contexts, in the order in which they are mixed in."""
    most: PositiveInt = 256
    """Followers of a context that count, the latest."""
    decay: Annotated[float, Range(above=0, at_most=1)] = 0.98
    """Of a follower's share, for every later one."""
    start: Annotated[float, Range(at_least=-20, at_most=0)] = -4.0
    """Logit of every mixing weight before it has learnt anything."""
    rate: NonNegativeFloat = 1.0
    """Learning rate of these logits, on the charge in nats."""

    def check(self) -> None:
        if not self.orders or list(self.orders) != sorted(set(self.orders)):
            raise ConfigError(f"orders = {self.orders} must rise and be at least one, such as (2, 3, 5, 8)")


@config
class CacheOnly(Adaptation):
    """The model stands still and is charged through `window`; what is learnt from the text is the cache alone."""

    cache: NgramCache = field(default_factory=NgramCache)
    window: Window = field(default_factory=Flat)

    @property
    def context(self) -> int:  # type: ignore[override]
        return self.window.context

    def reach(self) -> Window:
        return self.window


class DocumentOrder(Config):
    """In which order documents count: whose A a warm start takes, and which documents are a phase's."""


@config
class StreamOrder(DocumentOrder):
    """As they stand in the text: what a document costs depends on nothing that comes after it."""


@config
class LongestFirst(DocumentOrder):
    """By falling length, equal ones as in the text: the order in which the records complete them. Source: golf PR #1530."""


@config
class DocumentTTT(Adaptation):
    """Adapters of its own for every document, trained on it as it is read: a chunk is charged, then learnt from.

    Each chunk of `chunk_tokens` targets is predicted from the last `context` tokens of its document up to its end; then, if
    the document goes on, one step on the mean loss of these targets. Source: golf PR #77, #1530.
    """

    lora: LoRA = field(default_factory=LoRA)
    optimiser: AdapterAdamW = field(default_factory=AdapterAdamW)
    start: AdapterStart = field(default_factory=FreshStart)
    order: DocumentOrder = field(default_factory=StreamOrder)
    cache: NgramCache | None = None
    """Mixed into the adapted predictions, in the order of the text whatever `order` is."""
    context: ContextTokens = 2048
    chunk_tokens: PositiveInt = 48
    gradient_steps: PositiveInt = 1
    """Steps on each chunk; more than one repeats the forward pass."""
    slots: Annotated[int, Range(at_least=1, at_most=65_536)] = 128
    """Documents in progress at a time, all processes together: document i follows document i - slots."""
    step_tokens: Annotated[int, Range(at_least=1, at_most=1 << 24)] = 32_768
    """Tokens of one forward pass on a process, padding included; no influence on the score beyond rounding. Half as many leave
    a Hopper GPU waiting for the host.
    """

    def check(self) -> None:
        if self.chunk_tokens > self.context:
            raise ConfigError(f"chunk_tokens = {self.chunk_tokens} must not exceed context = {self.context}")
        if self.cache is not None and isinstance(self.order, LongestFirst):
            raise ConfigError(
                "cache goes in the order of the text and order = LongestFirst does not: nobody could decode both; "
                "set order=StreamOrder, or cache=None"
            )


@config
class GlobalSGD(Config):
    """SGD on the weights themselves, over charged text in stretches of `context` tokens; attention stays within documents.

    One step a chunk, with the gradient of its mean loss clipped to norm `clip`; the learning rate falls along half a cosine,
    and the last chunk, where it would be zero, is not trained. Source: golf PR #1610, #1736.
    """

    lr: NonNegativeFloat = 0.001
    momentum: Beta = 0.9
    chunk_tokens: PositiveInt = 32_768
    context: ContextTokens = 2048
    epochs: PositiveInt = 1
    clip: PositiveFloat = 1.0

    def check(self) -> None:
        _check_rows(self.chunk_tokens, self.context)


@config
class PhasedTTT(DocumentTTT):
    """DocumentTTT, and now and then the model itself learns: after each of `phases` equal parts of the first documents,
    a round of SGD over all documents so far. Later documents are read by the new weights.

    Counted from the first document and never from the last, so that in `StreamOrder` no charge depends on how many follow.
    Source: golf PR #1610, #1736.
    """

    prefix_documents: NonNegativeInt = 2000
    """Documents, in `order`, that are learnt from; a part whose end the text does not reach is not."""
    phases: PositiveInt = 3
    sgd: GlobalSGD = field(default_factory=GlobalSGD)


@config
class SequentialTTT(Adaptation):
    """The text in stretches of `chunk_tokens`: each is charged through sliding windows, then the weights learn from it.

    Rows of `context` tokens, `epochs` times over; the learning rate falls along half a cosine over the stretches; the last is
    not trained on. Source: golf PR #549.
    """

    context: ContextTokens = 2048
    stride: PositiveInt = 64
    chunk_tokens: PositiveInt = 32_768
    lr: NonNegativeFloat = 0.002
    momentum: Beta = 0.9
    epochs: PositiveInt = 3
    clip: PositiveFloat = 1.0

    def check(self) -> None:
        if self.stride > self.context:
            raise ConfigError(f"stride = {self.stride} must not exceed context = {self.context}, or tokens are skipped")
        _check_rows(self.chunk_tokens, self.context)


def _check_rows(chunk_tokens: int, context: int) -> None:
    if chunk_tokens % context:
        raise ConfigError(
            f"chunk_tokens = {chunk_tokens} must be a multiple of context = {context}: a chunk is whole rows"
        )
