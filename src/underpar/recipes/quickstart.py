"""The first run: a small model on the bundled text, for a laptop."""

from underpar.compress.codecs import Brotli
from underpar.compress.quantise import RoundToNearest
from underpar.core.budget import Budget
from underpar.data.loaders import SequentialRows
from underpar.data.tokenizers import SentencePiece
from underpar.evaluate.adaptation import CacheOnly, NgramCache
from underpar.evaluate.windows import Sliding
from underpar.nn.attention import Attention
from underpar.nn.embeddings import Embedding
from underpar.nn.mlp import MLP, LeakyReluSquared
from underpar.optim.adam import Adam
from underpar.optim.muon import Muon
from underpar.optim.schedules import MomentumWarmup, WarmdownFraction
from underpar.recipes.base import Recipe, recipe


@recipe("quickstart")
def quickstart(r: Recipe) -> None:
    """A small model on the bundled text: train, pack, score and verify on two CPU cores in about two minutes.

    Sized for speed on few cores: wide heads and few layers keep most of the time in matrix products, a vocabulary of 2,048
    puts more text into each token, and small batches buy more steps.
    """
    r.budget = Budget(train_seconds=100.0, train_steps=20_000, eval_seconds=60.0, artifact_bytes=1_000_000)
    r.data.bundled = True
    r.data.tokenizer = SentencePiece(vocab_size=2048)
    r.data.loader = SequentialRows(batch_tokens=2048, seq_len=256, spans=1)
    r.model.vocab_size, r.model.num_layers, r.model.model_dim = 2048, 3, 128
    r.model.embedding = Embedding(init_std=0.005, param_dtype="float32")
    r.model.attention = Attention(num_heads=2, num_kv_heads=1)
    r.model.mlp = MLP(ratio=3.0, activation=LeakyReluSquared(negative_slope=0.5))
    r.optim.matrix = Muon(lr=0.02)
    r.optim.embedding = Adam(lr=0.02)
    r.optim.gain = Adam(lr=0.02)
    r.schedule.learning_rate = WarmdownFraction(fraction=0.6, floor=0.0)
    r.schedule.momentum = MomentumWarmup(start=0.85, final=0.9, steps=200)
    r.train.warmup_steps = 1
    r.pack.quantiser, r.pack.codec = RoundToNearest(bits=8), Brotli()
    r.evaluate.batch_tokens = 2048  # small batches stay in a CPU's cache
    r.evaluate.window = Sliding(context=256, stride=128)


@recipe("quickstart_cached", parent=quickstart)
def quickstart_cached(r: Recipe) -> None:
    """What followed the same one to eight tokens earlier in a document is mixed into the prediction while the text is scored.

    Expected: a tenth less. A small model has learnt little and sees 256 tokens at a time; the cache remembers the document.
    Trains as the quickstart does: `underpar run quickstart_cached --trained-as quickstart`.
    """
    r.evaluate.adaptation = CacheOnly(
        cache=NgramCache(orders=(1, 2, 3, 5, 8), rate=0.3), window=Sliding(context=256, stride=128)
    )
