"""Components of the input that look at the token before: smear gates and hashed bigram embeddings."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.core.config import Config, NonNegativeFloat, PositiveInt, Range, abstract_config, config
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.data.context import Context
from underpar.nn.linear import Linear
from underpar.nn.module import Module
from underpar.nn.rows import keep_rows, look_up


def previous(x: Tensor) -> Tensor:
    """x (B, T, d) moved on by one position: what the token before had; zeros at the start of a row."""
    return F.pad(x[:, :-1], (0, 0, 1, 0))


# ------------------------------------------------------------------------------------------------- smear


class Smear(Config):
    """Mixes something of the token before into the embedding."""

    after_norm: bool
    """Whether it acts on the normalised embedding, or on the raw lookup."""

    def build(self, model_dim: int) -> Module:
        """A module (embedding (B, T, d), context) -> (B, T, d)."""
        raise NotImplementedError


@config
class SmearGate(Smear):
    """e_t + lambda * sigmoid(w . e_t[:width]) * e_(t-1), w and lambda zero at the start; never across a document start.

    The mask is a ruling of the game: the token before a document belongs to another one.
    Source: golf PR #1667, #1797; the mask #1851, #1855.
    """

    width: Annotated[int, Range(at_least=1, at_most=65_536)] = 12
    after_norm: bool = False

    def build(self, model_dim: int) -> Module:
        if self.width > model_dim:
            raise ConfigError(f"width = {self.width} is over model_dim = {model_dim}")
        return _SmearGate(self.width, crosses=False)


@config
class CrossingSmearGate(SmearGate):
    """A `SmearGate` without the mask: a document's first token sees the one before it in the row, of another document.

    Source: modded-nanogpt, record 34.
    """

    def build(self, model_dim: int) -> Module:
        SmearGate.build(self, model_dim)
        return _SmearGate(self.width, crosses=True)


class _SmearGate(Module):
    weight: Tensor
    strength: Tensor

    def __init__(self, width: int, *, crosses: bool) -> None:
        super().__init__()
        self.width, self.crosses = width, crosses
        self.declare("weight", torch.zeros(1, width), Role.GATE, "smear_gate")
        self.declare("strength", torch.zeros(()), Role.GAIN)

    def forward(self, e: Tensor, ctx: Context) -> Tensor:
        gate = self.strength.to(e.dtype) * torch.sigmoid(
            F.linear(e[..., : self.width].contiguous(), self.weight.to(e.dtype))
        )
        before = previous(e)
        return e + gate * (before if self.crosses else before.masked_fill(ctx.document_start.unsqueeze(-1), 0.0))


@config
class VectorSmear(Smear):
    """(1 - g) e_t + g e_(t-1) with a gate g = sigmoid(vector) per dimension, `gate_init` before the sigmoid.

    The early form: gate_init -3 on the raw lookup, or 0 on the normalised embedding. In dense rows it looks back across
    documents, as attention does there. Source: the March 2026 records of golf.
    """

    gate_init: float = -3.0
    after_norm: bool = False

    def build(self, model_dim: int) -> Module:
        return _VectorSmear(model_dim, self.gate_init)


class _VectorSmear(Module):
    gate: Tensor

    def __init__(self, model_dim: int, gate_init: float) -> None:
        super().__init__()
        self.declare("gate", torch.full((model_dim,), gate_init), Role.GAIN)

    def forward(self, e: Tensor, ctx: Context) -> Tensor:
        gate = torch.sigmoid(self.gate).to(e.dtype)
        before = previous(e).masked_fill(ctx.nothing_before().unsqueeze(-1), 0.0)
        return (1.0 - gate) * e + gate * before


# ------------------------------------------------------------------------------------------------- bigrams


class Bigram(Config):
    """A second embedding, looked up by a hash of a token and the one before it."""

    buckets: int
    in_every_block: ClassVar[bool] = False
    """Whether blocks mix it in, each with a weight of its own (`InjectedMix`), or it is added to the lookup before its norm."""

    def hash(self, tokens: Tensor, before: Tensor, alone: Tensor) -> Tensor:
        """(B, T) int64 bucket of each token; `alone` marks those without a predecessor, whose `before` is 0."""
        raise NotImplementedError

    def build(self, model_dim: int) -> Module:
        """A module (tokens (B, T), context, dtype) -> (B, T, model_dim)."""
        raise NotImplementedError


@abstract_config
class ProjectedBigram(Bigram):
    """A narrow table, a projection that starts at zero, and a scale. Added to the lookup before its norm."""

    dim: PositiveInt = 128
    table_std: NonNegativeFloat = 0.0
    scale_init: float = 0.05

    def build(self, model_dim: int) -> "BigramEmbedding":
        return BigramEmbedding(self, model_dim)


@config
class BigramHash(ProjectedBigram):
    """((36313 id_t) XOR (27191 id_(t-1))) mod (buckets - 1), a token without predecessor in the last bucket; scale 0.05.

    Products wrap at 32 bits. Added to the lookup before its norm. Source: the 20 March 2026 record of golf.
    """

    buckets: Annotated[int, Range(at_least=2, at_most=16_777_216)] = 10_240
    dim: PositiveInt = 128
    table_std: NonNegativeFloat = 0.0
    scale_init: float = 0.05

    def hash(self, tokens: Tensor, before: Tensor, alone: Tensor) -> Tensor:
        return _mixed_bucket(tokens, before, alone, self.buckets)


@config
class BigramProductHash(ProjectedBigram):
    """(92821 id_(t-1) + id_t) mod buckets, a token without predecessor counting 0 before it.

    Added to the lookup before its norm. Source: the 19 March 2026 record of golf.
    """

    buckets: Annotated[int, Range(at_least=1, at_most=16_777_216)] = 4096
    dim: PositiveInt = 128
    table_std: NonNegativeFloat = 0.01
    scale_init: float = 1.0

    def hash(self, tokens: Tensor, before: Tensor, alone: Tensor) -> Tensor:
        return (before * 92_821 + tokens) % self.buckets


def _int32(x: Tensor) -> Tensor:
    """What the low 32 bits of an int64 mean as a signed number."""
    return ((x + 2**31) & (2**32 - 1)) - 2**31


def _mixed_bucket(tokens: Tensor, before: Tensor, alone: Tensor, buckets: int) -> Tensor:
    mixed = _int32(36_313 * tokens) ^ _int32(27_191 * before)
    return (mixed % (buckets - 1)).masked_fill(alone, buckets - 1)


@config
class BigramTable(Bigram):
    """A table (buckets, model_dim), zero at the start, that every block mixes in; the hash of `BigramHash`.

    Looks across the start of a document, as in the records: only the first token of a row is without predecessor.
    Source: modded-nanogpt, record 62.
    """

    in_every_block: ClassVar[bool] = True

    buckets: Annotated[int, Range(at_least=2, at_most=16_777_216)] = 251_520

    def hash(self, tokens: Tensor, before: Tensor, alone: Tensor) -> Tensor:
        return _mixed_bucket(tokens, before, alone, self.buckets)

    def build(self, model_dim: int) -> Module:
        return _BigramTable(self, model_dim)


@config
class SparseBigramTable(BigramTable):
    """A `BigramTable` with the same gradients, added up and sent between processes by the rows that a step touched.

    Source: modded-nanogpt, record 71.
    """

    def build(self, model_dim: int) -> Module:
        return SparseTable(self, model_dim)


class _BigramTable(Module):
    table: Tensor

    def __init__(self, config: BigramTable, model_dim: int) -> None:
        super().__init__()
        self.hash = config.hash
        self.declare("table", torch.zeros(config.buckets, model_dim), Role.EMBEDDING, "bigram_embedding")

    def look_up(self, tokens: Tensor, ctx: Context) -> Tensor:
        """(B, T, model_dim) in the table's dtype."""
        alone = torch.zeros_like(ctx.document_start)
        alone[:, 0] = True
        return look_up(self.table, self.hash(tokens, F.pad(tokens[:, :-1], (1, 0)), alone))

    def forward(self, tokens: Tensor, ctx: Context, dtype: torch.dtype) -> Tensor:
        return self.look_up(tokens, ctx).to(dtype)


class SparseTable(_BigramTable):
    """See `SparseBigramTable`."""

    def __init__(self, config: BigramTable, model_dim: int) -> None:
        super().__init__(config, model_dim)
        keep_rows(self.table)


class BigramEmbedding(Module):
    """(B, T) tokens -> (B, T, model_dim): table (buckets, dim), projection (model_dim, dim) zero at the start, a scale."""

    table: Tensor
    scale: Tensor

    def __init__(self, config: ProjectedBigram, model_dim: int) -> None:
        super().__init__()
        self.hash = config.hash
        self.declare("table", torch.empty(config.buckets, config.dim).normal_(std=config.table_std), Role.EMBEDDING)
        self.project = Linear(config.dim, model_dim, zero_init=True)
        self.declare("scale", torch.tensor(float(config.scale_init)), Role.GAIN)

    def forward(self, tokens: Tensor, ctx: Context, dtype: torch.dtype) -> Tensor:
        alone = ctx.nothing_before()
        before = F.pad(tokens[:, :-1], (1, 0)).masked_fill(alone, 0)
        looked_up = F.embedding(self.hash(tokens, before, alone), self.table).to(dtype)
        return self.scale.to(dtype) * self.project(looked_up)
