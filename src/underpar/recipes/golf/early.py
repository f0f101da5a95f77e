"""The early line of the 16 MB game: from the stock trainer to the first quantisation-aware record."""

from underpar.compress.codecs import Zlib, Zstd
from underpar.compress.quantise import Float16, Int8PerRow, IntRows, QuantileClip, RoundToNearest
from underpar.data.loaders import SequentialRows
from underpar.data.tokenizers import SentencePiece
from underpar.evaluate.windows import Flat, Sliding
from underpar.nn.attention import Attention
from underpar.nn.fake_quantise import FakeIntPerRow
from underpar.nn.mlp import MLP, ReluSquared
from underpar.optim.adam import Adam
from underpar.optim.averaging import SWA
from underpar.optim.muon import Muon
from underpar.optim.normuon import NorMuon
from underpar.optim.schedules import MomentumWarmup, WarmdownSteps
from underpar.recipes.base import Recipe, recipe


@recipe("golf/baseline")
def baseline(r: Recipe) -> None:
    """The stock trainer: 9 blocks of width 512, vocabulary 1024, rows of 1,024 tokens, Muon and Adam, int8 and zlib.

    Published: 1.22437 bpb on FineWeb, 13,780 steps of 43.5 ms on 8xH100, 15,863,489 bytes.
    Source: openai/parameter-golf, the repository's train_gpt.py.
    """
    r.data.tokenizer = SentencePiece(vocab_size=1024)
    r.data.loader = SequentialRows(batch_tokens=524_288, seq_len=1024)
    r.model.vocab_size, r.model.num_layers, r.model.model_dim = 1024, 9, 512
    r.model.attention = Attention(num_heads=8, num_kv_heads=4, qk_gain_init=1.5)
    r.model.mlp = MLP(ratio=2.0, activation=ReluSquared())
    r.optim.matrix = Muon(lr=0.04)
    r.optim.embedding = Adam(lr=0.05)
    r.optim.gain = Adam(lr=0.04)
    r.schedule.learning_rate = WarmdownSteps(steps=1200)
    r.schedule.momentum = MomentumWarmup(start=0.85, final=0.95, steps=500)
    r.pack.quantiser, r.pack.codec = Int8PerRow(), Zlib()
    r.evaluate.window = Flat(context=1024)
    r.budget.train_steps = 20_000


@recipe("golf/longcontext2048", parent=baseline)
def longcontext2048(r: Recipe) -> None:
    """Rows of 2,048 tokens instead of 1,024, in training and in scoring; nothing else.

    Expected: a lower loss per step, since fewer tokens lack history; attention costs more. Source: openai/parameter-golf.
    """
    r.data.loader.seq_len = 2048
    r.evaluate.window.context = 2048


@recipe("golf/seq4096", parent=longcontext2048)
def seq4096(r: Recipe) -> None:
    """Rows of 4,096 tokens, a smaller batch, half the learning rates, momentum 0.99, a longer warm-down.

    Published: 1.20143 bpb on FineWeb (three seeds: 1.20136), 8,394 steps of 71.5 ms on 8xH100, 15,868,326 bytes.
    Source: openai/parameter-golf record "Training Opt Seq4096 v1".
    """
    r.data.loader.seq_len, r.data.loader.batch_tokens = 4096, 393_216
    r.evaluate.window.context = 4096
    r.optim.matrix = Muon(lr=0.02)
    r.optim.embedding = Adam(lr=0.03)
    r.optim.gain = Adam(lr=0.02)
    r.schedule.learning_rate = WarmdownSteps(steps=3000)
    r.schedule.momentum = MomentumWarmup(start=0.92, final=0.99, steps=1500)


@recipe("golf/sp2048", parent=seq4096)
def sp2048(r: Recipe) -> None:
    """A vocabulary of 2,048, and the shape that goes with it: 8 blocks, MLP ratio 3, 524,288 tokens a step.

    Expected: 19,941,440 parameters; longer tokens, so more text a step. Too large for int8: the next step makes room.
    Source: golf PR #78, #122.
    """
    r.data.tokenizer = SentencePiece(vocab_size=2048)
    r.data.loader.batch_tokens = 524_288
    r.model.vocab_size, r.model.num_layers = 2048, 8
    r.model.mlp.ratio = 3.0


@recipe("golf/qat6", parent=sp2048)
def qat6(r: Recipe) -> None:
    """Six-bit matrices, met in training from the first step; the embedding in fp16; zstd instead of zlib.

    Expected: rounding costs a few thousandths of a bpb instead of a few hundredths. The clip is the records', the floor of
    their scale, 1/31, is not: it would make rows whose largest weight is below 1 coarser than the grid they were trained on.
    Source: golf PR #122.
    """
    r.fake_quantise = FakeIntPerRow(bits=6)
    r.pack.quantiser = RoundToNearest(
        bits=6, matrix=IntRows(bits=6, clip=QuantileClip()), embedding=Float16(), passthrough_elements=65_536
    )
    r.pack.codec = Zstd(level=22)


@recipe("golf/normuon", parent=qat6)
def normuon(r: Recipe) -> None:
    """NorMuon instead of Muon: orthogonalised updates with every row brought to an even size.

    Expected: a little lower at the same step time. Source: golf PR #122; NorMuon, arXiv:2510.05491.
    """
    r.optim.matrix = NorMuon(lr=0.02)


@recipe("golf/swa", parent=normuon)
def swa(r: Recipe) -> None:
    """The mean of a snapshot every 200 steps while the learning rate is below half.

    Expected: flatter weights, which lose less to rounding. Source: golf PR #122.
    """
    r.averaging = SWA(start_below=0.5, every=200)


@recipe("golf/pr122", parent=swa)
def pr122(r: Recipe) -> None:
    """Scored through windows of 4,096 tokens that move on by 64.

    Published: 1.16027 bpb on FineWeb (mean of three seeds), 11,102 steps of 54.1 ms on 8xH100, 15,348,959 bytes; the record's
    windows leave the first 4,032 tokens unscored, these score every token. Source: golf PR #122.
    """
    r.evaluate.window = Sliding(context=4096, stride=64)
