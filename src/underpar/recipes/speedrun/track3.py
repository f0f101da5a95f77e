"""The optimiser track: a plain model, its data and its batch are fixed; the fewest steps to 3.28 win."""

from underpar.data.loaders import SequentialRows
from underpar.data.tokenizers import Gpt2
from underpar.evaluate.windows import Flat
from underpar.model.gpt import GPTConfig
from underpar.model.plan import Straight
from underpar.nn.attention import Attention
from underpar.nn.branch_scale import NoScale
from underpar.nn.caps import RationalCap
from underpar.nn.embeddings import CappedHead, Embedding
from underpar.nn.init import ScaledNormalInit
from underpar.nn.mlp import MLP, ReluSquared
from underpar.nn.norm import VectorGain
from underpar.nn.residual import StreamOnly
from underpar.nn.rope import EndpointRope
from underpar.optim.adam import Adam
from underpar.optim.muon import Muon
from underpar.optim.orthogonalise import ConvergedNewtonSchulz
from underpar.optim.partition import Optim
from underpar.optim.schedules import MomentumWarmup, WarmdownFraction, WarmupWarmdown
from underpar.recipes.base import Recipe, recipe


@recipe("speedrun/track3-muon")
def track3_muon(r: Recipe) -> None:
    """The Muon baseline of the optimiser track: 12 layers of width 768, rows of 1,024 tokens, 524,288 tokens a step.

    Published: 3.2787 after 3,250 steps, mean of ten. Momentum is a sum here and an average there, which orthogonalisation does
    not see. Source: modded-nanogpt, track 3, result 36.
    """
    r.budget.train_seconds = r.budget.eval_seconds = r.budget.artifact_bytes = None
    r.budget.train_steps = 3250
    r.data.tokenizer = Gpt2()
    r.data.loader = SequentialRows(batch_tokens=524_288, seq_len=1024)
    r.model = GPTConfig(
        vocab_size=50_304, num_layers=12, model_dim=768,
        embedding=Embedding(init_std=1.0, param_dtype="bfloat16"),
        attention=Attention(
            num_heads=6, num_kv_heads=6, qk_gain_init=None, bias=True, rope=EndpointRope(base=1024.0, scale=0.12)
        ),
        mlp=MLP(ratio=4.0, activation=ReluSquared(), bias=True),
        branch_scale=NoScale(),
        norm_gain=VectorGain(),
        residual=StreamOnly(),
        topology=Straight(),
        init=ScaledNormalInit(variance=0.33),
        head=CappedHead(cap=RationalCap(bound=15.0), bias=True),
    )  # fmt: skip
    r.optim = Optim(
        matrix=Muon(lr=0.025, weight_decay=0.05, orthogonalise=ConvergedNewtonSchulz(steps=12)),
        embedding=adamw(0.7, 0.001), head=adamw(0.004, 0.001), gain=adamw(0.015, 0.001),
    )  # fmt: skip
    r.schedule.learning_rate = WarmdownFraction(fraction=0.7, floor=0.0)
    r.schedule.momentum = MomentumWarmup(start=0.95, final=0.95, steps=0)
    r.train.micro_batch_tokens = 65_536
    r.train.validate_every_steps = 125
    r.evaluate.window = Flat(context=1024)


@recipe("speedrun/track3-adam", parent=track3_muon)
def track3_adam(r: Recipe) -> None:
    """AdamW for the matrices too, with a warm-up of 250 steps: what Muon is measured against.

    Published: 3.2790 after 5,625 steps, one run. Source: modded-nanogpt, track 3, result 2.
    """
    r.budget.train_steps = 5625
    r.optim = Optim(
        matrix=Adam(lr=0.0015, beta1=0.9, beta2=0.95, eps=1e-10, weight_decay=0.10),
        embedding=adamw(0.3, 0.0), head=adamw(1 / 320, 0.0), gain=adamw(0.01, 0.0),
    )  # fmt: skip
    r.schedule.learning_rate = WarmupWarmdown(fraction=0.7, floor=0.0, warmup_steps=250)


def adamw(lr: float, weight_decay: float) -> Adam:
    """Of what is no matrix."""
    return Adam(lr=lr, beta1=0.8, beta2=0.95, eps=1e-10, weight_decay=weight_decay)
