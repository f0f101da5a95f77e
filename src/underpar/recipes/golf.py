"""The 16 MB game: the published recipes, oldest first, each the difference from its parent."""

from underpar.compress.codecs import Zlib
from underpar.compress.quantise import Int8PerRow
from underpar.data.loaders import SequentialRows
from underpar.data.tokenizers import SentencePiece
from underpar.evaluate.windows import Flat
from underpar.nn.attention import Attention
from underpar.nn.mlp import MLP, ReluSquared
from underpar.optim.adam import Adam
from underpar.optim.muon import Muon
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
