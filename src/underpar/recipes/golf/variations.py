"""Techniques of the 16 MB game outside its documented records, each on the recipe that it was tried on or the nearest."""

from underpar.nn.fake_quantise import FakeIntPerRow
from underpar.nn.gates import DoubledGate, QueryGate
from underpar.nn.layers import LastLayers, TheseLayers
from underpar.nn.lookback import BigramHash, BigramProductHash, VectorSmear
from underpar.nn.recurrence import FrozenMix, LearnedMix
from underpar.nn.rope import StretchedRope
from underpar.nn.value_embedding import ValueEmbedding
from underpar.optim.adam import Adam
from underpar.optim.clip import GlobalClip
from underpar.optim.schedules import BelowRate, DecayTaper
from underpar.recipes.base import Recipe, recipe
from underpar.recipes.golf.early import pr122, swa
from underpar.recipes.golf.late import gated_skips, pr1736, pr1787, pr1855
from underpar.recipes.golf.underpar import water_filled
from underpar.train.calibration import GeneratedText


@recipe("golf/frozen_recurrence", parent=pr1787)
def frozen_recurrence(r: Recipe) -> None:
    """Later passes of recurrent layers keep fixed shares of the pass before, read off a run that learned them.

    Source: golf PR #1779.
    """
    r.model.recurrence_mix = FrozenMix()


@recipe("golf/learned_recurrence", parent=pr1736)
def learned_recurrence(r: Recipe) -> None:
    """Later passes of recurrent layers learn what they keep of the pass before: twelve scalars. Source: golf PR #2137."""
    r.model.recurrence_mix = LearnedMix()


@recipe("golf/wd_taper", parent=pr1787)
def wd_taper(r: Recipe) -> None:
    """Weight decay of the matrices falls to half over the last 30 % of training. Source: golf PR #1729."""
    r.schedule.weight_decay = DecayTaper(start=0.70, final=0.5)


@recipe("golf/self_calibrated", parent=water_filled)
def self_calibrated(r: Recipe) -> None:
    """Calibration on 1,024 documents of 128 tokens that the model writes itself: no training text after the last step.

    Trains as its parent does; packing writes the text first, at 80 forward passes over it. Source: golf PR #1019.
    """
    r.pack.calibration = GeneratedText()
    r.pack.calibration_tokens = 131_072


@recipe("golf/global_clip", parent=pr1855)
def global_clip(r: Recipe) -> None:
    """Clip the norm of the whole gradient, after its reduction: one threshold whatever the number of processes."""
    r.optim.clip = GlobalClip(norm=0.3)


@recipe("golf/yarn", parent=pr1736)
def yarn(r: Recipe) -> None:
    """Rotary frequencies stretch when rows are longer than in training; at 2,048 tokens nothing changes.

    Off in all documented records, one of which claims it. Scored here on stretches of 4,096. Source: golf PR #1530 line.
    """
    r.model.attention.rope = StretchedRope(dims=16, train_length=2048)
    r.evaluate.window.context = 4096


@recipe("golf/value_embedding", parent=gated_skips)
def value_embedding(r: Recipe) -> None:
    """Layers 9 and 10 add a projected embedding of the token to their values. Source: golf, March 2026 records (VE128)."""
    r.model.value_embedding = ValueEmbedding(dim=128, layers=TheseLayers(layers=(9, 10)))


@recipe("golf/xsa_last4", parent=gated_skips)
def xsa_last4(r: Recipe) -> None:
    """Exclusive self-attention in the last four layers alone. Source: golf, March 2026 records."""
    r.model.attention.exclude_self = LastLayers(count=4)


@recipe("golf/attention_out_gate", parent=gated_skips)
def attention_out_gate(r: Recipe) -> None:
    """A gate of 2 sigmoid on every head, one at the start, from 12 dimensions of the stream. Source: golf PR #1667."""
    r.model.attention.gate = DoubledGate(width=12)
    r.optim.gate = Adam(lr=0.02)


@recipe("golf/query_gate", parent=gated_skips)
def query_gate(r: Recipe) -> None:
    """The same gate read from the first 12 dimensions of the projected queries. Source: golf PR #1667."""
    r.model.attention.gate = QueryGate(width=12)
    r.optim.gate = Adam(lr=0.02)


@recipe("golf/bigram_hash", parent=pr122)
def bigram_hash(r: Recipe) -> None:
    """10,240 hashed bigrams of 128 dimensions are added to the embedding. Source: golf, 20 March 2026 record."""
    r.model.bigram = BigramHash(buckets=10_240, dim=128)


@recipe("golf/bigram_product_hash", parent=pr122)
def bigram_product_hash(r: Recipe) -> None:
    """4,096 hashed bigrams of 128 dimensions are added to the embedding. Source: golf, 19 March 2026 record."""
    r.model.bigram = BigramProductHash(buckets=4096, dim=128)


@recipe("golf/early_smear", parent=pr122)
def early_smear(r: Recipe) -> None:
    """A gate per dimension mixes the lookup with the one before, 5 % at the start. Source: golf, March 2026 records."""
    r.model.smear = VectorSmear(gate_init=-3.0)


@recipe("golf/early_smear_after_norm", parent=pr122)
def early_smear_after_norm(r: Recipe) -> None:
    """A gate per dimension mixes the normalised embedding with the one before, half and half at the start.

    Source: golf, March 2026 records.
    """
    r.model.smear = VectorSmear(gate_init=0.0, after_norm=True)


@recipe("golf/late_qat", parent=swa)
def late_qat(r: Recipe) -> None:
    """Fake quantisation only once the learning rate is below 15 %. Source: golf, March 2026 records."""
    r.fake_quantise = FakeIntPerRow(bits=6)
    r.schedule.fake_quantise = BelowRate(lr_scale=0.15)
