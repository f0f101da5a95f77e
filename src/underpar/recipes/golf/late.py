"""The late line of the 16 MB game: from quantisation-aware rows of text to packed documents, recurrence and lanes.

Published figures are on FineWeb, 8xH100, three seeds. Each function is one technique; what its record changed besides stands in
the step that it belongs to.
"""

from underpar.compress.codecs import Brotli, Mixing
from underpar.compress.lowrank import AsymmetricLowRank, Correction, NoCorrection
from underpar.compress.precision import Float16, Gptq, IntRows
from underpar.compress.quantise import RoundToNearest, SdClip
from underpar.compress.rules import ByRule, Rule
from underpar.data.loaders import DocumentPacking, SequentialRows
from underpar.data.tokenizers import PublishedModel
from underpar.evaluate.adaptation import AdapterAdamW, PhasedTTT, WarmStart
from underpar.evaluate.windows import Documents, Flat
from underpar.model.plan import Lanes, Recurrence
from underpar.nn.adapters import LoRA
from underpar.nn.gates import DenseGate, SparseGate
from underpar.nn.init import OrthogonalInit
from underpar.nn.layers import AllLayers
from underpar.nn.lookback import SmearGate
from underpar.nn.loss import EagerLoss, FusedLoss
from underpar.nn.mlp import MLP, LeakyReluSquared
from underpar.nn.norm import InverseRootDepth
from underpar.nn.residual import GatedSkips
from underpar.optim.adam import Adam
from underpar.optim.averaging import EMA
from underpar.optim.clip import LocalClip
from underpar.optim.muon import Muon
from underpar.optim.muoneqr import MuonEqR
from underpar.optim.orthogonalise import PolarExpress
from underpar.optim.schedules import FromFraction, MomentumWarmup, WarmdownFraction
from underpar.recipes.base import Recipe, recipe
from underpar.recipes.golf.early import pr122

CASEOPS_8192 = PublishedModel(
    file="fineweb_8192_bpe_lossless_caps_caseops_v1_reserved",
    sha256="97754754561f20def5edd99765ca0668f880bd94e67316d54aa10ab25f45cc4d",
    vocab_size=8192,
)


def gptq(mlp_sigmas: float, embedding_sigmas: float, correction: Correction) -> ByRule:
    """GPTQ at six bits, seven for the embedding; gates as int8 rows; everything small in fp16."""
    return ByRule(
        rules=(
            Rule(role="gate", at_least_elements=32, at_most_elements=8192, precision=IntRows(bits=8)),
            Rule(at_most_elements=65_536, precision=Float16()),
            Rule(role="embedding", precision=Gptq(bits=7, clip=SdClip(sigmas=embedding_sigmas))),
            Rule(component="mlp", precision=Gptq(bits=6, clip=SdClip(sigmas=mlp_sigmas))),
            Rule(component="attention", precision=Gptq(bits=6, clip=SdClip(sigmas=13.0))),
        ),
        gain=Float16(),
        correction=correction,
    )


@recipe("golf/caseops8192", parent=pr122)
def caseops8192(r: Recipe) -> None:
    """8,192 pieces over text whose capitals are markers; rows of 2,048; plain Muon, no fake quantisation, no averaging.

    Expected: twice the text a token; the vocabulary takes a seventh of the parameters. The scripts from here to #1787 compute
    the loss eagerly. Source: golf PR #1394 (8,192 pieces), #1729 (CaseOps).
    """
    r.data.tokenizer = CASEOPS_8192
    r.data.loader = SequentialRows(batch_tokens=786_432, seq_len=2048)
    r.model.vocab_size = 8192
    r.model.head.loss = EagerLoss()
    r.fake_quantise, r.averaging = None, None
    r.optim.matrix = Muon(lr=0.02)
    r.pack.quantiser = RoundToNearest(
        matrix=IntRows(bits=6, clip=SdClip(sigmas=12.85)),
        embedding=IntRows(bits=7, clip=SdClip(sigmas=15.0)),
        gate=IntRows(bits=8),
        passthrough_elements=31,
    )
    r.pack.codec = Brotli()
    r.evaluate.window = Flat(context=2048)


@recipe("golf/packed", parent=caseops8192)
def packed(r: Recipe) -> None:
    """Documents packed into long rows in which attention restarts at each, in training and in scoring.

    Expected: no history from unrelated text, and less attention to compute. Source: golf PR #1530.
    """
    r.data.loader = DocumentPacking(batch_tokens=786_432, seq_len=2048)
    r.evaluate.window = Documents(context=2048)


@recipe("golf/mlp4_leaky", parent=packed)
def mlp4_leaky(r: Recipe) -> None:
    """11 blocks, MLP ratio 4 with leaky ReLU squared, orthogonal initial matrices, query gain 5.

    Expected: 36 M parameters, which need six bits each and a good coder to fit. Source: golf PR #549 (leaky ReLU squared),
    #1394, #1530.
    """
    r.model.num_layers = 11
    r.model.mlp = MLP(ratio=4.0, activation=LeakyReluSquared(negative_slope=0.5))
    r.model.init = OrthogonalInit()
    r.model.attention.qk_gain_init = 5.0


@recipe("golf/partial_rope", parent=mlp4_leaky)
def partial_rope(r: Recipe) -> None:
    """Positions turn 16 of a head's 64 dimensions; the others match by content alone. Source: golf PR #1530 line."""
    r.model.attention.rope.dims = 16


@recipe("golf/layer_scale", parent=partial_rope)
def layer_scale(r: Recipe) -> None:
    """What a block reads is scaled by 1 / sqrt(depth). Source: golf PR #1530 line."""
    r.model.norm_scale = InverseRootDepth()


@recipe("golf/xsa", parent=layer_scale)
def xsa(r: Recipe) -> None:
    """Exclusive self-attention in every layer: a head's output loses what it shares with the token's own value.

    Expected: attention stops repeating what the residual stream knows. Source: golf PR #1530 line.
    """
    r.model.attention.exclude_self = AllLayers()


@recipe("golf/gated_skips", parent=xsa)
def gated_skips(r: Recipe) -> None:
    """Skips interpolate by a learned gate instead of adding. Source: golf PR #1530 line."""
    r.model.skips = GatedSkips()


@recipe("golf/recurrence", parent=gated_skips)
def recurrence(r: Recipe) -> None:
    """Layers 3 to 5 run three times, from 35 % of the budget on: 17 executions of 11 blocks.

    Expected: fewer steps and a better model from each parameter. Source: golf PR #1344, #1530 ("Loop45" by its folder's name).
    """
    r.model.topology.recurrence = Recurrence(first=3, last=5, passes=3)
    r.schedule.recurrence = FromFraction(fraction=0.35)


@recipe("golf/lanes", parent=recurrence)
def lanes(r: Recipe) -> None:
    """From layer 8 on, attention and MLP work side by side on two residual lanes. Source: golf PR #1530."""
    r.model.topology.lanes = Lanes(first=8, output="mean")


@recipe("golf/muoneq_r", parent=lanes)
def muoneq_r(r: Recipe) -> None:
    """MuonEq-R with weight decay everywhere, gradients clipped at 0.3, and a warm-down over the last 75 % of the time.

    Expected: decayed weights have lower entropy, so the artifact can be wider. Each process clips its own gradient, as the
    records do. Source: golf PR #1530 line.
    """
    r.optim.matrix = MuonEqR(lr=0.026, weight_decay=0.095)
    r.optim.embedding = Adam(lr=0.03, weight_decay=0.085)
    r.optim.gain = Adam(lr=0.02, weight_decay=0.02)
    r.optim.clip = LocalClip(norm=0.3)
    r.schedule.momentum = MomentumWarmup(start=0.92, final=0.97, steps=1500)
    r.schedule.learning_rate = WarmdownFraction(fraction=0.75, floor=0.0)


@recipe("golf/ema", parent=muoneq_r)
def ema(r: Recipe) -> None:
    """An exponential average of the weights with decay 0.9965 is scored and packed. Source: golf PR #1421."""
    r.averaging = EMA(decay=0.9965)


@recipe("golf/pr1736", parent=ema)
def pr1736(r: Recipe) -> None:
    """A gate on every head, read from the whole stream; GPTQ; adapters that learn from every document as it is scored.

    Matrices are clipped at 12 and 13 standard deviations; there are three rounds of SGD on the way.

    Published: 1.06852 before quantisation, 1.07793 after, 1.06549 with test-time training, 4,848 steps (means of three).
    Exactly 35,989,658 parameters. The record's rounds take the longest documents first, whichever are done by then; here they
    take the first 2,000 of the text, so that no charge depends on text behind it. Source: golf PR #1736.
    """
    r.pack.quantiser = gptq(mlp_sigmas=12.0, embedding_sigmas=15.0, correction=NoCorrection())
    r.budget.calibration_seconds = 4.0
    r.model.attention.gate = DenseGate(init_std=0.005)
    r.optim.gate = Adam(lr=0.02, weight_decay=0.02)
    r.evaluate.adaptation = PhasedTTT(
        lora=LoRA(rank=96), optimiser=AdapterAdamW(weight_decay=0.5), prefix_documents=2000
    )


@recipe("golf/polar_express", parent=pr1736)
def polar_express(r: Recipe) -> None:
    """Polar Express coefficients: five different steps that bring all singular values near one.

    Source: golf PR #1344, #1787; arXiv:2505.16932.
    """
    r.optim.matrix = MuonEqR(lr=0.026, weight_decay=0.095, orthogonalise=PolarExpress())


@recipe("golf/min_lr", parent=polar_express)
def min_lr(r: Recipe) -> None:
    """The learning rate never falls below a tenth of its peak. Belongs with an average of the weights.

    Source: golf PR #1787.
    """
    r.schedule.learning_rate.floor = 0.10


@recipe("golf/sparse_gate", parent=min_lr)
def sparse_gate(r: Recipe) -> None:
    """The gate reads 12 of the 512 dimensions: 44,000 parameters fewer. Source: golf PR #1787."""
    r.model.attention.gate = SparseGate(width=12, scale=1.0)


@recipe("golf/warm_adapters", parent=sparse_gate)
def warm_adapters(r: Recipe) -> None:
    """Adapters scaled by alpha / rank, their A handed on from document to document, weight decay 1.

    Published: 1.06335 where the adapters before give 1.06378, on the same artifacts. Source: golf PR #1767.
    """
    r.evaluate.adaptation = PhasedTTT(
        lora=LoRA(rank=96, alpha=144.0),
        optimiser=AdapterAdamW(weight_decay=1.0),
        start=WarmStart(),
        prefix_documents=2000,
    )


@recipe("golf/pr1787", parent=warm_adapters)
def pr1787(r: Recipe) -> None:
    """The loss as one fused kernel each way: the same mathematics, less time.

    Published: 1.06699 before quantisation, 1.07632 after, 1.06335 with test-time training, 4,961 steps (means of three).
    Exactly 35,945,658 parameters. Source: golf PR #1787.
    """
    r.model.head.loss = FusedLoss()


@recipe("golf/smear_gate", parent=pr1787)
def smear_gate(r: Recipe) -> None:
    """A little of the embedding before is mixed into each, never across a document start. Source: golf PR #1797, #1851."""
    r.model.smear = SmearGate(width=12)


@recipe("golf/pr1855", parent=smear_gate)
def pr1855(r: Recipe) -> None:
    """The retuned values of the last record: warm-down, beta2, gate scale, clips, low-rank corrections, adapters of rank 80.

    Warm-down over 85 %, beta2 0.99, gate scale 0.5, clips of 11.5 and 14; low-rank corrections of the three largest rounding
    errors; rounds of SGD over 2,500 documents. The reserve for calibration stays at four seconds: the record's half a second
    is less than its own calibration took.

    Published: 1.06513 before quantisation, 1.07380 after, 1.06108 with test-time training, 4,931 steps (means of three).
    Exactly 35,945,671 parameters. A mixing coder stands in for its grouped ZPAQ streams. Source: golf PR #1855, #1797
    (corrections).
    """
    r.schedule.learning_rate.fraction = 0.85
    r.optim.embedding = Adam(lr=0.03, beta2=0.99, weight_decay=0.085)
    r.optim.gain = Adam(lr=0.02, beta2=0.99, weight_decay=0.02)
    r.optim.gate = Adam(lr=0.02, beta2=0.99, weight_decay=0.02)
    r.model.attention.gate = SparseGate(width=12, scale=0.5)
    r.pack.quantiser = gptq(mlp_sigmas=11.5, embedding_sigmas=14.0, correction=AsymmetricLowRank(rank=4, count=3))
    r.pack.codec = Mixing()
    r.evaluate.adaptation = PhasedTTT(
        lora=LoRA(rank=80, alpha=144.0),
        optimiser=AdapterAdamW(beta2=0.99, weight_decay=0.5),
        start=WarmStart(),
        prefix_documents=2500,
    )
