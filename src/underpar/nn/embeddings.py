"""Token embedding and output head."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underpar.core.config import Config, PositiveFloat, abstract_config, config, field
from underpar.core.roles import Role
from underpar.kernels.fp8_head import fp8_head_loss
from underpar.kernels.multi_target_ce import Cap, multi_target_cross_entropy
from underpar.kernels.softcapped_ce import cross_entropy
from underpar.nn.caps import LogitCap, RationalCap, SigmoidCap
from underpar.nn.frame import NO_VISIT, Visit
from underpar.nn.linear import Linear
from underpar.nn.loss import FusedLoss, Loss, multi_target_losses
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

    def build(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> "OutputHead":
        raise NotImplementedError


@abstract_config
class TanhHead(Head):
    """Logits are bounded to +-softcap by softcap * tanh(logits / softcap)."""

    softcap: PositiveFloat = 30.0
    loss: Loss = field(default_factory=FusedLoss)

    def build(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> "OutputHead":
        return _TanhOutput(self, self.make_projection(embedding, vocab_size, model_dim))

    def make_projection(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> nn.Module:
        raise NotImplementedError


@config
class TiedHead(TanhHead):
    """The embedding table, used again as output projection."""

    def make_projection(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> nn.Module:
        return TiedProjection(embedding)


@config
class UntiedHead(TanhHead):
    """An output projection of its own, zero at the start so that every token begins equally likely."""

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

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def cap(self, logits: Tensor) -> Tensor:
        """Raw logits -> bounded ones, in the same dtype."""
        raise NotImplementedError

    def next_token_losses(self, raw: Tensor, targets: Tensor) -> Tensor:
        """(N, vocab_size) raw logits, (N,) targets -> (N,) float32 nats."""
        return cross_entropy(self.cap(raw.float()), targets)

    def logits(self, hidden: Tensor, visit: Visit = NO_VISIT) -> Tensor:
        """(B, T, vocab_size) bounded logits in float32."""
        return self.cap(visit("head", hidden, self.projection(hidden)).float())

    def losses(
        self, hidden: Tensor, targets: Tensor, visit: Visit = NO_VISIT, target_weights: Tensor | None = None
    ) -> Tensor:
        """(B, T) float32 nats of each target; with weights (K,) the weighted sum over the next K tokens of its row."""
        raw = visit("head", hidden, self.projection(hidden))
        if target_weights is None:
            return self.next_token_losses(raw.flatten(0, 1), targets.flatten()).view_as(targets)
        return multi_target_losses(self.cap(raw.float()), targets, target_weights)


class _TanhOutput(OutputHead):
    def __init__(self, config: TanhHead, projection: nn.Module) -> None:
        super().__init__(projection)
        self.softcap, self.loss = config.softcap, config.loss

    def cap(self, logits: Tensor) -> Tensor:
        return self.softcap * torch.tanh(logits / self.softcap)

    def next_token_losses(self, raw: Tensor, targets: Tensor) -> Tensor:
        return self.loss(raw, targets, self.softcap)


# ------------------------------------------------------------------------------------------------- other caps


@config
class CappedHead(Head):
    """An output projection of its own under any cap, zero at the start."""

    cap: LogitCap = field(default_factory=RationalCap)
    bias: bool = False
    """Whether it adds a learned vector, zero at the start."""

    def build(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> "OutputHead":
        return _CappedOutput(self.cap, Linear(model_dim, vocab_size, zero_init=True, role=Role.HEAD, bias=self.bias))


@config
class SplitHead(Head):
    """An output projection that starts as a copy of the embedding. While the schedule ties the two they stay equal: the
    optimiser gives the projection the gradients of both, and the embedding its values. Source: modded-nanogpt, records 51, 53.
    """

    cap: SigmoidCap = field(default_factory=SigmoidCap)

    def build(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> "OutputHead":
        return _SplitOutput(self.cap, _CopiedProjection(embedding.weight))


@config
class Fp8SplitHead(SplitHead):
    """A `SplitHead` whose product is in fp8 while it trains, where the GPU has that; scoring is not.

    Source: modded-nanogpt, records 19 and 51.
    """

    def build(self, embedding: TokenEmbedding, vocab_size: int, model_dim: int) -> "OutputHead":
        return _Fp8SplitOutput(self.cap, _CopiedProjection(embedding.weight))


class _CopiedProjection(Module):
    weight: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.declare("weight", table.detach().clone(), Role.HEAD)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class _CappedOutput(OutputHead):
    def __init__(self, cap: LogitCap, projection: nn.Module) -> None:
        super().__init__(projection)
        self._cap = cap

    def cap(self, logits: Tensor) -> Tensor:
        return self._cap(logits)


class _SplitOutput(_CappedOutput):
    projection: _CopiedProjection

    def __init__(self, cap: SigmoidCap, projection: _CopiedProjection) -> None:
        super().__init__(cap, projection)
        self.constants = Cap(cap.scale, cap.shift, cap.divisor)

    def losses(
        self, hidden: Tensor, targets: Tensor, visit: Visit = NO_VISIT, target_weights: Tensor | None = None
    ) -> Tensor:
        raw = visit("head", hidden, self.projection(hidden)).flatten(0, 1)
        weights = torch.ones(1, device=hidden.device) if target_weights is None else target_weights
        row = targets.shape[1]
        return multi_target_cross_entropy(raw, targets.flatten(), weights, self.constants, row).view_as(targets)


class _Fp8SplitOutput(_SplitOutput):
    def losses(
        self, hidden: Tensor, targets: Tensor, visit: Visit = NO_VISIT, target_weights: Tensor | None = None
    ) -> Tensor:
        if target_weights is None or visit is not NO_VISIT:
            return _SplitOutput.losses(self, hidden, targets, visit, target_weights)
        rows, wanted = hidden.flatten(0, 1), targets.flatten()
        found = fp8_head_loss(rows, self.projection.weight, wanted, target_weights, self.constants, targets.shape[1])
        return found.view_as(targets)
