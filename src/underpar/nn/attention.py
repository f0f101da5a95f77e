"""Causal self-attention with grouped queries, QK normalisation and rotary positions."""

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveFloat, PositiveInt, config, field
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.data.context import Context
from underpar.kernels.attention import attention
from underpar.kernels.qk_norm_rope import qk_norm_rope
from underpar.nn.linear import Linear, project_together
from underpar.nn.module import Module
from underpar.nn.norm import EPS
from underpar.nn.rope import Rope


@config
class Attention(Config):
    """Grouped-query attention: q and k are RMS-normalised per head, rotated, and q is scaled by a learned gain per head.

    With the 1/sqrt(head_dim) of the softmax kept, logits start within +-gain * sqrt(head_dim).
    """

    num_heads: PositiveInt = 8
    num_kv_heads: PositiveInt = 4
    rope: Rope = field(default_factory=Rope)
    qk_gain_init: PositiveFloat = 1.5

    def check(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_heads = {self.num_heads} must be a multiple of num_kv_heads = {self.num_kv_heads}")

    def head_dim(self, model_dim: int) -> int:
        """Width of one head. Raises ConfigError when heads do not divide the model, or cannot be rotated."""
        if model_dim % self.num_heads:
            raise ConfigError(f"model_dim = {model_dim} must be a multiple of num_heads = {self.num_heads}")
        head_dim = model_dim // self.num_heads
        if head_dim % 2:
            raise ConfigError(
                f"model_dim / num_heads = {head_dim} must be even: heads are rotated in pairs of dimensions"
            )
        if self.rope.dims is not None and self.rope.dims > head_dim:
            raise ConfigError(f"rope.dims = {self.rope.dims} is over model_dim / num_heads = {head_dim}")
        return head_dim

    def build(self, model_dim: int) -> "SelfAttention":
        return SelfAttention(self, model_dim)


class SelfAttention(Module):
    """(B, T, model_dim) -> (B, T, model_dim)."""

    q_gain: Tensor

    def __init__(self, config: Attention, model_dim: int) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.head_dim(model_dim)
        kv_dim = config.num_kv_heads * self.head_dim
        self.q = Linear(model_dim, model_dim)
        self.k = Linear(model_dim, kv_dim)
        self.v = Linear(model_dim, kv_dim)
        self.out = Linear(model_dim, model_dim, zero_init=True)
        self.declare("q_gain", torch.full((config.num_heads,), float(config.qk_gain_init)), Role.GAIN)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        batch, length, dim = x.shape
        q, k, v = (y.view(batch, length, -1, self.head_dim) for y in project_together(x, (self.q, self.k, self.v)))
        cos, sin = self.config.rope.tables(length, self.head_dim, x.device)
        q, k = qk_norm_rope(q, k, self.q_gain, cos, sin, eps=EPS)
        y = attention(q, k, v, ctx.cu_seqlens, ctx.max_seqlen)
        return self.out(y.reshape(batch, length, dim))
