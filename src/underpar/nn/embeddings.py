"""Token embedding and output head."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underpar.core.config import Config, PositiveFloat, config, field
from underpar.core.roles import Role
from underpar.nn.frame import NO_VISIT, Visit
from underpar.nn.linear import Linear
from underpar.nn.loss import FusedLoss, Loss
from underpar.nn.module import Module


@config
class Embedding(Config):
    """A lookup table with N(0, init_std^2) entries."""

    init_std: PositiveFloat = 0.005
    param_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Storage of the table and of its Adam moments. The records train it in bfloat16; float32 is a change."""

    def build(self, vocab_size: int, model_dim: int) -> "TokenEmbedding":
        return TokenEmbedding(self, vocab_size, model_dim)


class TokenEmbedding(Module):
    """(B, T) int64 -> (B, T, model_dim) in `dtype`."""

    weight: Tensor

    def __init__(self, config: Embedding, vocab_size: int, model_dim: int) -> None:
        super().__init__()
        table = torch.empty(vocab_size, model_dim).normal_(std=config.init_std)
        self.declare("weight", table.to(getattr(torch, config.param_dtype)), Role.EMBEDDING)

    def forward(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        return F.embedding(tokens, self.weight).to(dtype)


class Head(Config):
    """Final hidden states -> logits -> losses."""

    softcap: float
    loss: Loss

    def build(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> "OutputHead":
        return OutputHead(self, self.make_projection(embedding, vocab_size, model_dim))

    def make_projection(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> nn.Module:
        raise NotImplementedError


@config
class TiedHead(Head):
    """The embedding table, used again as output projection."""

    softcap: PositiveFloat = 30.0
    """Logits are bounded to +-softcap by softcap * tanh(logits / softcap)."""
    loss: Loss = field(default_factory=FusedLoss)

    def make_projection(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> nn.Module:
        return TiedProjection(embedding)


@config
class UntiedHead(Head):
    """An output projection of its own, zero at the start so that every token begins equally likely."""

    softcap: PositiveFloat = 30.0
    loss: Loss = field(default_factory=FusedLoss)

    def make_projection(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> nn.Module:
        return Linear(model_dim, vocab_size, zero_init=True, role=Role.HEAD)


class TiedProjection(nn.Module):
    """x E^T. Holds the embedding outside the module tree, so that its table is registered once."""

    def __init__(self, embedding: TokenEmbedding) -> None:
        super().__init__()
        self._embedding = (embedding,)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self._embedding[0].weight.to(x.dtype))


class OutputHead(nn.Module):
    """(B, T, model_dim) hidden states to logits or losses."""

    def __init__(self, config: Head, projection: nn.Module) -> None:
        super().__init__()
        self.softcap, self.loss = config.softcap, config.loss
        self.projection = projection

    def logits(self, hidden: Tensor, visit: Visit = NO_VISIT) -> Tensor:
        """(B, T, vocab_size) soft-capped logits in float32."""
        return self.softcap * torch.tanh(visit("head", hidden, self.projection(hidden)).float() / self.softcap)

    def losses(self, hidden: Tensor, targets: Tensor, visit: Visit = NO_VISIT) -> Tensor:
        """(B, T) float32 nats of each target."""
        raw = visit("head", hidden, self.projection(hidden))
        return self.loss(raw.flatten(0, 1), targets.flatten(), self.softcap).view_as(targets)
