"""The record that the station recipe starts from, whole: what went before it is history, not a chain of recipes here."""

from underpar.data.aligned import AlignedDocuments
from underpar.data.tokenizers import Gpt2
from underpar.evaluate.windows import Contiguous
from underpar.model.gpt import GPTConfig
from underpar.model.plan import SkipAndBackout
from underpar.nn.attention import Attention
from underpar.nn.branch_scale import NoScale
from underpar.nn.embeddings import Embedding, Fp8SplitHead
from underpar.nn.gates import SparseGate
from underpar.nn.init import ScaledUniformInit
from underpar.nn.key_offset import CrossingKeyOffset
from underpar.nn.layers import TheseLayers
from underpar.nn.lookback import BigramTable, CrossingSmearGate
from underpar.nn.mlp import MLP, ReluSquared
from underpar.nn.pairs import RecordedPairs
from underpar.nn.residual import InjectedMix, InputGatedSkips
from underpar.nn.rope import WindowRope
from underpar.nn.value_embedding import GatedValueTables
from underpar.nn.weight_gains import ScalarWeightGains
from underpar.nn.windows import Windows
from underpar.optim.decay import CautiousDecay
from underpar.optim.mantissa import Mantissa
from underpar.optim.orthogonalise import PolarExpress
from underpar.optim.partition import Labelled, Optim
from underpar.optim.schedules import Cooldown, DecayFollowsRate, MomentumWarmup
from underpar.optim.sharded_adam import ShardedAdam
from underpar.optim.sided_normuon import SidedNorMuon
from underpar.optim.stages import Stage, StageTable
from underpar.recipes.base import Recipe, recipe
from underpar.train.training import SummedGradient

THIRD = 1 / 3
LAYERS = 11
ATTENTION_FREE = 6
MUON_LR, MUON_DECAY = 0.023, 1.2
ADAM_LR, ADAM_DECAY = 0.008, 0.005


@recipe("speedrun/record67")
def record67(r: Recipe) -> None:
    """Record 67 of the short track: 11 layers of width 768 in three stages, 412.9 M tokens, to a loss of 3.28 on FineWeb.

    Published: 92.98 s on 8xH100, mean of three; loss 3.2784. Exactly 539,100,296 parameters, of which 386 M are tables of
    values and bigrams. Heads have their dimensions in another order than there, which the initial draw cannot tell.
    Source: modded-nanogpt PR #207, with the gradient scale of the commit after it.
    """
    r.budget.train_seconds = r.budget.eval_seconds = r.budget.artifact_bytes = None
    r.budget.train_steps = 1555
    r.data.tokenizer = Gpt2()
    r.data.loader = AlignedDocuments(batch_tokens=131_072, seq_len=2048)
    r.model = model()
    r.optim = optim()
    r.schedule.learning_rate = Cooldown(fraction=0.55, floor=0.10)
    r.schedule.momentum = MomentumWarmup(start=0.85, final=0.95, steps=300, cooldown_steps=50)
    r.schedule.weight_decay = DecayFollowsRate()
    r.schedule.stages = stages()
    r.train.micro_batch_tokens = 16_384  # one of the eight spans at a time, whatever its length
    r.train.gradient_scale = SummedGradient(shares=8)
    r.train.validate_every_steps = 250
    r.evaluate.window = Contiguous(context=262_144)
    r.evaluate.batch_tokens = 262_144


def model() -> GPTConfig:
    """Gates read 12 dimensions; layer 6 has no attention; windows are those of scoring."""
    attention = Attention(
        layers=TheseLayers(layers=tuple(layer for layer in range(LAYERS) if layer != ATTENTION_FREE)),
        num_heads=6, num_kv_heads=6, qk_gain_init=None, zero_out=False,
        rope=WindowRope(base=1024.0, scale=0.1, windows=(384, 896, 1408, 1664)),
        weight_gains=ScalarWeightGains(inputs=0.5, output=1.0),
        windows=Windows(short=768, long=2560, long_layers=TheseLayers(layers=(3, 10))),
        pairs=RecordedPairs(layers=TheseLayers(layers=(0, 2, 5, 9))),
        key_offset=CrossingKeyOffset(layers=TheseLayers(layers=(3, 10))),
        gate=SparseGate(width=12, scale=1.0),
    )  # fmt: skip
    return GPTConfig(
        vocab_size=50_304, num_layers=LAYERS, model_dim=768,
        embedding=Embedding(init_std=0.005, param_dtype="bfloat16"),
        bigram=BigramTable(buckets=251_520),
        smear=CrossingSmearGate(width=12),
        value_embedding=GatedValueTables(layers=TheseLayers(layers=(0, 1, 8, 9, 10)), init_std=0.0),
        attention=attention,
        mlp=MLP(ratio=4.0, activation=ReluSquared()),
        branch_scale=NoScale(),
        residual=InjectedMix(keep=1.1, from_input=0.0, from_bigram=0.1),
        topology=SkipAndBackout(save=3, add=6, backout=7),
        skips=InputGatedSkips(width=12, strength=-1.5),
        init=ScaledUniformInit(gain=0.5),
        head=Fp8SplitHead(),
        storage="bfloat16",
    )  # fmt: skip


def optim() -> Optim:
    """NorMuon for the matrices; Adam on every second step for the rest, by label."""
    return Optim(
        matrix=muon(1.0),
        embedding=adam(1.0, 0.5, 0.95, decay=150.0),
        head=adam(1.0, 0.5, 0.95, decay=150.0),
        gain=adam(5.0, 0.9, 0.99),
        gate=adam(1.0, 0.9, 0.99, decay=1.0),
        by_label=(
            Labelled(label="mlp_down", optimiser=muon(4.0)),  # 2 for its shape as it is stored there, and 2 for itself
            Labelled(label="value_embedding", optimiser=adam(75.0, 0.75, 0.95, decay=5.0)),
            Labelled(label="bigram_embedding", optimiser=adam(75.0, 0.75, 0.95, decay=5.0)),
            Labelled(label="smear_gate", optimiser=adam(0.01, 0.9, 0.99)),
            Labelled(label="skip_gate", optimiser=adam(0.05, 0.9, 0.99)),
            Labelled(label="input_mix", optimiser=adam(5.0, 0.65, 0.95)),
        ),
    )


def muon(factor: float) -> SidedNorMuon:
    """factor: of the learning rate. The decay is the record's 1.2 times its learning rate."""
    return SidedNorMuon(
        lr=MUON_LR * factor, weight_decay=MUON_DECAY * MUON_LR, beta2=0.95,
        orthogonalise=PolarExpress(safety_factor=1.02), decay=CautiousDecay(), master=Mantissa(),
    )  # fmt: skip


def adam(factor: float, beta1: float, beta2: float, *, decay: float = 0.0) -> ShardedAdam:
    """factor: of the learning rate. decay: of the weight decay, which is the record's 0.005 times the learning rate."""
    lr = ADAM_LR * factor
    return ShardedAdam(lr=lr, beta1=beta1, beta2=beta2, weight_decay=lr * ADAM_DECAY * decay, every=2)


def stages() -> StageTable:
    """Batch, windows and learning rate grow; the tokens after the next leave the loss; embedding and head part."""
    last = Stage(
        share=THIRD, batch_tokens=393_216, seq_len=2048, short_window=5, long_window=11, lr_scale=1.73, targets=(1.0,)
    )
    return StageTable(
        stages=(
            Stage(
                share=THIRD, batch_tokens=131_072, seq_len=2048, short_window=1, long_window=3, lr_scale=1.0,
                targets=(1.0, 0.5, 0.25), targets_end=(1.0, 0.5, 0.0), tied=True,
            ),
            Stage(
                share=THIRD, batch_tokens=262_144, seq_len=2048, short_window=3, long_window=7, lr_scale=1.52,
                targets=(1.0, 0.5), targets_end=(1.0, 0.0), tied=True,
            ),
            last,
        ),
        extension=Stage(batch_tokens=393_216, seq_len=2048, short_window=6, long_window=13, targets=(1.0,)),
        extension_steps=40,
    )  # fmt: skip
