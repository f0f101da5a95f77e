"""The components that take the exam. A new one joins with one line."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from support import BOS, tiny_config
from underpar.data.context import Context, packed_context, row_context
from underpar.model.gpt import GPTConfig
from underpar.model.plan import Lanes, Recurrence, SkipAndBackout, Straight, UNet
from underpar.nn.attention import Attention
from underpar.nn.branch_scale import NoScale
from underpar.nn.caps import RationalCap
from underpar.nn.embeddings import CappedHead, Embedding, Fp8SplitHead, SplitHead, TiedHead, UntiedHead
from underpar.nn.gates import DenseGate, DoubledGate, OutputGate, QueryGate, SparseGate
from underpar.nn.init import OrthogonalInit, ScaledNormalInit, ScaledUniformInit
from underpar.nn.key_offset import CrossingKeyOffset, IsolatedKeyOffset, KeyOffset
from underpar.nn.layers import AllLayers, LastLayers, TheseLayers
from underpar.nn.lookback import (
    BigramHash,
    BigramProductHash,
    BigramTable,
    CrossingSmearGate,
    SmearGate,
    SparseBigramTable,
    VectorSmear,
)
from underpar.nn.loss import EagerLoss
from underpar.nn.mlp import MLP, LeakyReluSquared, ReluSquared
from underpar.nn.norm import InverseRootDepth, VectorGain
from underpar.nn.pairs import AdjacentPairs, HeadPairs, RecordedPairs
from underpar.nn.recurrence import FrozenMix, LearnedMix
from underpar.nn.residual import GatedSkips, InjectedMix, InputGatedSkips, InputMix, StreamOnly
from underpar.nn.rope import EndpointRope, Rope, StretchedRope, WindowRope
from underpar.nn.value_embedding import GatedValueTables, SelfGatedValueTables, ValueEmbedding
from underpar.nn.weight_gains import ScalarWeightGains
from underpar.nn.windows import Windows

ContextOf = Callable[[Tensor], Context]


def rows(tokens: Tensor) -> Context:
    """Attention sees the whole row."""
    return row_context(tokens, BOS)


def packed(tokens: Tensor) -> Context:
    """Attention restarts at every document and every 16 tokens."""
    return packed_context(tokens, BOS, max_seqlen=16)


@dataclass(frozen=True)
class Component:
    """One component, put into the tiny model in place of what is there."""

    name: str
    fields: dict[str, object]
    context_of: ContextOf = rows
    starts_as_nothing: bool = True
    """Whether fresh blocks add nothing to the stream."""
    crosses: str | None = None
    """What the first token of a packed document sees of the one before, by a named choice: "last token" or "document"."""

    def config(self, num_layers: int = 2) -> GPTConfig:
        """`num_layers` counts where the component does not set its own."""
        config = tiny_config()
        config.num_layers = num_layers
        for field, value in self.fields.items():
            setattr(config, field, value)
        return config.frozen()

    def context(self, tokens: Tensor) -> Context:
        return self.context_of(tokens)

    @property
    def is_packed(self) -> bool:
        return self.context_of is packed


def gated(gate: OutputGate) -> Attention:
    return Attention(num_heads=4, num_kv_heads=2, gate=gate)


LOOP = Recurrence(first=1, last=2, passes=3)

LATE_STACK = {
    "num_layers": 5,
    "attention": Attention(
        num_heads=4, num_kv_heads=2, rope=Rope(dims=4), exclude_self=AllLayers(), gate=SparseGate(scale=0.5)
    ),
    "mlp": MLP(ratio=4.0, activation=LeakyReluSquared()),
    "norm_scale": InverseRootDepth(),
    "skips": GatedSkips(),
    "smear": SmearGate(),
    "topology": UNet(recurrence=LOOP, lanes=Lanes(first=3)),
}

GROWN = WindowRope(windows=(4, 8, 11))


def first() -> TheseLayers:
    """Fresh each time: a config may stand in one place only."""
    return TheseLayers(layers=(0,))


def windows() -> Windows:
    return Windows(short=5, long=11, long_layers=first())


def paired(pairs: HeadPairs) -> Attention:
    return Attention(num_heads=4, num_kv_heads=4, windows=windows(), pairs=pairs)


def offset(key_offset: KeyOffset) -> Attention:
    return Attention(num_heads=4, num_kv_heads=2, rope=Rope(dims=4), key_offset=key_offset)


RECORD67 = {
    "num_layers": 4,
    "bigram": BigramTable(buckets=50),
    "smear": CrossingSmearGate(),
    "value_embedding": GatedValueTables(layers=TheseLayers(layers=(0, 3))),
    "attention": Attention(
        layers=TheseLayers(layers=(0, 1, 3)), num_heads=4, num_kv_heads=4, qk_gain_init=None, zero_out=False, rope=GROWN,
        weight_gains=ScalarWeightGains(), windows=Windows(short=5, long=11, long_layers=TheseLayers(layers=(3,))),
        pairs=RecordedPairs(layers=first()), key_offset=CrossingKeyOffset(layers=TheseLayers(layers=(3,))), gate=SparseGate(),
    ),
    "branch_scale": NoScale(),
    "residual": InjectedMix(),
    "topology": SkipAndBackout(save=0, add=2, backout=2),
    "skips": InputGatedSkips(),
    "init": ScaledUniformInit(),
    "head": SplitHead(),
}  # fmt: skip

COMPONENTS = [
    Component("relu-squared", {"mlp": MLP(activation=ReluSquared())}),
    Component("leaky-relu-squared", {"mlp": MLP(activation=LeakyReluSquared(negative_slope=0.5))}),
    Component("mlp-ratio-3", {"mlp": MLP(ratio=3.0)}),
    Component("mlp-odd-width", {"mlp": MLP(ratio=1.6)}),
    Component("grouped-query-attention", {"attention": Attention(num_heads=4, num_kv_heads=2)}),
    Component("multi-query-attention", {"attention": Attention(num_heads=4, num_kv_heads=1)}),
    Component("multi-head-attention", {"attention": Attention(num_heads=4, num_kv_heads=4)}),
    Component("rope-full", {"attention": Attention(num_heads=2, num_kv_heads=1, rope=Rope())}),
    Component("rope-partial", {"attention": Attention(num_heads=2, num_kv_heads=1, rope=Rope(dims=4))}),
    Component("qk-gain-5", {"attention": Attention(num_heads=4, num_kv_heads=2, qk_gain_init=5.0)}),
    Component("input-mix", {"residual": InputMix()}),
    Component("stream-only", {"residual": StreamOnly()}),
    Component("u-net-even", {"topology": UNet(), "num_layers": 4}),
    Component("u-net-odd", {"topology": UNet(), "num_layers": 3}),
    Component("straight", {"topology": Straight(), "num_layers": 3}),
    Component("one-layer", {"num_layers": 1}),
    Component("tied-head", {"head": TiedHead(softcap=15.0)}),
    Component("untied-head", {"head": UntiedHead()}),
    Component("embedding-bfloat16", {"embedding": Embedding(init_std=0.05, param_dtype="bfloat16")}),
    Component("embedding-float32", {"embedding": Embedding(init_std=0.05, param_dtype="float32")}),
    Component("packed-documents", {}, packed),
    Component("packed-u-net-leaky", {"num_layers": 3, "mlp": MLP(activation=LeakyReluSquared())}, packed),
    Component("packed-partial-rope", {"attention": Attention(num_heads=2, num_kv_heads=1, rope=Rope(dims=4))}, packed),
    Component("exclude-self-all", {"attention": Attention(num_heads=4, num_kv_heads=2, exclude_self=AllLayers())}),
    Component(
        "exclude-self-last", {"attention": Attention(num_heads=4, num_kv_heads=2, exclude_self=LastLayers(count=1))}
    ),
    Component("sparse-gate", {"attention": gated(SparseGate(width=12, scale=0.5))}),
    Component("dense-gate", {"attention": gated(DenseGate())}),
    Component("doubled-gate", {"attention": gated(DoubledGate())}),
    Component("query-gate", {"attention": gated(QueryGate())}),
    Component("inverse-root-depth", {"norm_scale": InverseRootDepth()}),
    Component("gated-skips", {"skips": GatedSkips(), "num_layers": 4}),
    Component("orthogonal-init", {"init": OrthogonalInit()}),
    Component(
        "stretched-rope", {"attention": Attention(num_heads=4, num_kv_heads=2, rope=StretchedRope(train_length=8))}
    ),
    Component("recurrence", {"topology": UNet(recurrence=LOOP), "num_layers": 4}),
    Component(
        "recurrence-learned-mix", {"topology": UNet(recurrence=LOOP), "num_layers": 4, "recurrence_mix": LearnedMix()}
    ),
    Component(
        "recurrence-frozen-mix",
        {
            "topology": UNet(recurrence=LOOP),
            "num_layers": 4,
            "recurrence_mix": FrozenMix(beta=(1.5, 0.5), alpha=(0.1, 0.2, 0.0, -0.3)),
        },
    ),
    Component("lanes-mean", {"topology": UNet(lanes=Lanes(first=3)), "num_layers": 5}),
    Component("lanes-mlp", {"topology": UNet(lanes=Lanes(first=3, output="mlp")), "num_layers": 5}),
    Component("lanes-attention", {"topology": UNet(lanes=Lanes(first=2, output="attention")), "num_layers": 4}),
    Component(
        "value-embedding", {"value_embedding": ValueEmbedding(dim=8, layers=TheseLayers(layers=(1,))), "num_layers": 2}
    ),
    Component("bigram-hash", {"bigram": BigramHash(buckets=50, dim=8)}),
    Component("bigram-product-hash", {"bigram": BigramProductHash(buckets=40, dim=8)}),
    Component("smear-gate", {"smear": SmearGate()}),
    Component("vector-smear", {"smear": VectorSmear()}),
    Component("vector-smear-after-norm", {"smear": VectorSmear(gate_init=0.0, after_norm=True)}),
    Component("eager-loss", {"head": TiedHead(loss=EagerLoss())}),
    Component("packed-smear-gate", {"smear": SmearGate()}, packed),
    Component("packed-vector-smear", {"smear": VectorSmear()}, packed),
    Component("packed-bigram-hash", {"bigram": BigramHash(buckets=50, dim=8)}, packed),
    Component("packed-late-stack", LATE_STACK, packed),
    Component("windows", {"attention": Attention(num_heads=4, num_kv_heads=2, windows=windows())}),
    Component("packed-windows", {"attention": Attention(num_heads=4, num_kv_heads=2, windows=windows())}, packed),
    Component("window-rope", {"attention": Attention(num_heads=4, num_kv_heads=2, windows=windows(), rope=GROWN)}),
    Component("endpoint-rope", {"attention": Attention(num_heads=4, num_kv_heads=2, rope=EndpointRope())}),
    Component("no-query-gain", {"attention": Attention(num_heads=4, num_kv_heads=2, qk_gain_init=None)}),
    Component("recorded-pairs", {"attention": paired(RecordedPairs(layers=first()))}),
    Component("adjacent-pairs", {"attention": paired(AdjacentPairs(layers=first()))}),
    Component("packed-recorded-pairs", {"attention": paired(RecordedPairs(layers=first()))}, packed),
    Component("packed-adjacent-pairs", {"attention": paired(AdjacentPairs(layers=first()))}, packed),
    Component("packed-key-offset", {"attention": offset(IsolatedKeyOffset(layers=first()))}, packed),
    Component(
        "packed-crossing-key-offset",
        {"attention": offset(CrossingKeyOffset(layers=first()))},
        packed,
        crosses="last token",
    ),
    Component("attention-free-layer", {"attention": Attention(num_heads=4, num_kv_heads=2, layers=first())}),
    Component("weight-gains", {"attention": Attention(num_heads=4, num_kv_heads=2, weight_gains=ScalarWeightGains())}),
    Component("no-branch-scale", {"branch_scale": NoScale()}),
    Component("gated-value-tables", {"value_embedding": GatedValueTables(layers=first(), init_std=0.1)}),
    Component("value-tables-read-values", {"value_embedding": SelfGatedValueTables(layers=first(), init_std=0.1)}),
    Component("bigram-table", {"bigram": BigramTable(buckets=50), "residual": InjectedMix()}),
    Component("sparse-bigram-table", {"bigram": SparseBigramTable(buckets=50), "residual": InjectedMix()}),
    Component(
        "packed-bigram-table",
        {"bigram": BigramTable(buckets=50), "residual": InjectedMix()},
        packed,
        crosses="last token",
    ),
    Component("packed-crossing-smear-gate", {"smear": CrossingSmearGate()}, packed, crosses="last token"),
    Component(
        "skip-and-backout",
        {"topology": SkipAndBackout(save=0, add=2, backout=2), "num_layers": 3, "skips": InputGatedSkips()},
    ),
    Component("split-head", {"head": SplitHead()}),
    Component("fp8-split-head", {"head": Fp8SplitHead()}),
    Component("capped-head", {"head": CappedHead(cap=RationalCap())}),
    Component("biases", {"attention": Attention(num_heads=4, num_kv_heads=2, bias=True), "mlp": MLP(bias=True)}),
    Component("head-bias", {"head": CappedHead(bias=True)}),
    Component("norm-gains", {"norm_gain": VectorGain()}),
    Component("scaled-uniform-init", {"init": ScaledUniformInit()}),
    Component("scaled-normal-init", {"init": ScaledNormalInit()}),
    Component(
        "output-starts-busy",
        {"attention": Attention(num_heads=4, num_kv_heads=2, zero_out=False)},
        starts_as_nothing=False,
    ),
    Component("packed-record67", RECORD67, packed, starts_as_nothing=False, crosses=True),
]


def example(seed: int = 0, length: int = 40) -> tuple[Tensor, Tensor]:
    """One row (1, length) of three documents, the middle one from 12 to 33; and its targets."""
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randint(2, 64, (1, length + 1), generator=generator)
    stream[0, [0, 12, 33]] = BOS
    return stream[:, :-1].clone(), stream[:, 1:].clone()
