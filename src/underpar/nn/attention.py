"""Causal self-attention with grouped queries, QK norm, rotary positions, a gain per query head, and what late recipes add."""

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveFloat, PositiveInt, config, field
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.kernels.attention import attention
from underpar.kernels.exclusive_gate import exclusive_gate
from underpar.kernels.qk_norm_rope import qk_norm_rope
from underpar.nn.frame import NO_VISIT, Frame, Visit
from underpar.nn.gates import HeadGate, OutputGate
from underpar.nn.layers import LayerSet, NoLayers
from underpar.nn.linear import Linear, project_together
from underpar.nn.module import Module
from underpar.nn.norm import EPS
from underpar.nn.rope import Rope


@config
class Attention(Config):
    """Heads, positions and gains of every layer.

    q (model_dim, model_dim), k and v (num_kv_heads * head_dim, model_dim), out (model_dim, model_dim) zero at the start;
    q_gain (num_heads,). The softmax keeps its 1 / sqrt(head_dim).
    """

    num_heads: PositiveInt = 8
    num_kv_heads: PositiveInt = 4
    rope: Rope = field(default_factory=Rope)
    qk_gain_init: PositiveFloat = 1.5
    exclude_self: LayerSet = field(default_factory=NoLayers)
    """Layers whose head outputs lose the component along the token's own value vector. Source: exclusive self-attention
    (XSA); golf PR #1530 line."""
    gate: OutputGate | None = None
    """A factor on every head's output."""

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

    def build(self, model_dim: int, layer: int, num_layers: int) -> "SelfAttention":
        return SelfAttention(self, model_dim, excludes_self=self.exclude_self.contains(layer, num_layers))


class SelfAttention(Module):
    """(B, T, model_dim) -> (B, T, model_dim)."""

    q_gain: Tensor

    def __init__(self, config: Attention, model_dim: int, *, excludes_self: bool) -> None:
        super().__init__()
        self.head_dim = config.head_dim(model_dim)
        self.excludes_self = excludes_self
        kv_dim = config.num_kv_heads * self.head_dim
        self.q = Linear(model_dim, model_dim)
        self.k = Linear(model_dim, kv_dim)
        self.v = Linear(model_dim, kv_dim)
        self.out = Linear(model_dim, model_dim, zero_init=True)
        self.gate: HeadGate | None = config.gate.build(model_dim, config.num_heads) if config.gate else None
        self.declare("q_gain", torch.full((config.num_heads,), float(config.qk_gain_init)), Role.GAIN)

    def forward(self, x: Tensor, frame: Frame, value_gain: Tensor | None = None, visit: Visit = NO_VISIT) -> Tensor:
        """value_gain: () what this layer multiplies the frame's value embedding by before adding it to its values."""
        batch, length, dim = x.shape
        projections = {"q": self.q, "k": self.k, "v": self.v}
        raw_q, raw_k, raw_v = project_together(x, projections, frame.operand, visit)
        q, k, v = (y.view(batch, length, -1, self.head_dim) for y in (raw_q, raw_k, raw_v))
        q, k = qk_norm_rope(q, k, self.q_gain, frame.cos, frame.sin, eps=EPS)
        if value_gain is not None and frame.values is not None:
            v = v + value_gain.to(v.dtype) * frame.values
        y = attention(q, k, v, frame.ctx.cu_seqlens, frame.ctx.max_seqlen)
        own = v if self.excludes_self else None
        if self.gate is None:
            y = exclusive_gate(y, own)
        else:
            y = exclusive_gate(y, own, self.gate(x, raw_q), factor=self.gate.factor)
        merged = y.reshape(batch, length, dim)
        return visit("out", merged, self.out(merged, frame.operand))
