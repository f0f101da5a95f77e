"""What tests of several rooms share: tiny models, token shards, batches."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from underpar.data.context import Context, row_context
from underpar.data.shards import shard_name, write_shard
from underpar.model.gpt import GPT, GPTConfig
from underpar.nn.attention import Attention
from underpar.nn.embeddings import Embedding

BOS = 1
VOCAB = 64


def tiny_config() -> GPTConfig:
    """Two layers of width 32, vocabulary 64: a forward pass takes a millisecond."""
    return GPTConfig(
        vocab_size=VOCAB,
        num_layers=2,
        model_dim=32,
        embedding=Embedding(init_std=0.05, param_dtype="float32"),
        attention=Attention(num_heads=4, num_kv_heads=2),
    )


def seeded(config: GPTConfig, seed: int = 0) -> GPT:
    """The model of a config as it starts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build()


@torch.no_grad()
def perturb(model: nn.Module, seed: int = 1, std: float = 0.2) -> None:
    """Move every parameter off its initial value, so that no branch is nothing because its weights are zero."""
    generator = torch.Generator().manual_seed(seed)
    for param in model.parameters():
        param.add_((torch.randn(param.shape, generator=generator) * std).to(param.dtype))


def busy(config: GPTConfig, seed: int = 0) -> GPT:
    """A model in which every parameter matters."""
    model = seeded(config, seed)
    perturb(model)
    return model


def random_tokens(*shape: int, vocab_size: int = VOCAB, seed: int = 0) -> Tensor:
    """int64 ids without BOS."""
    return torch.randint(BOS + 1, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def dense(tokens: Tensor) -> Context:
    return row_context(tokens, BOS)


def document_tokens(count: int, *, vocab_size: int = VOCAB, mean_length: int = 20, seed: int = 0) -> np.ndarray:
    """(count,) uint16: documents of a learnable pattern, each behind a BOS."""
    rng = np.random.default_rng(seed)
    tokens = np.empty(count, dtype=np.uint16)
    value = 2
    for i in range(count):
        value = (value * 5 + 3 + int(rng.integers(0, 3))) % (vocab_size - 2) + 2
        tokens[i] = value
    tokens[rng.random(count) < 1 / mean_length] = BOS
    tokens[0] = BOS
    return tokens


def write_train_shards(folder: Path, *parts: np.ndarray) -> np.ndarray:
    """Write the parts as consecutive training shards; returns the whole stream."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, part in enumerate(parts):
        write_shard(folder / shard_name("train", index), part.astype(np.uint16))
    return np.concatenate(parts)
