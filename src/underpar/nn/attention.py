"""Causal self-attention with grouped queries, QK norm, rotary positions, a gain per query head, and what late recipes add."""

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveFloat, PositiveInt, config, field
from underpar.core.errors import ConfigError
from underpar.core.phase import WindowSizes
from underpar.core.roles import Role
from underpar.kernels.attention import attention
from underpar.kernels.exclusive_gate import exclusive_gate
from underpar.kernels.qk_norm_rope import qk_norm_rope
from underpar.nn.frame import NO_VISIT, AddValues, Frame, Visit
from underpar.nn.gates import HeadGate, OutputGate
from underpar.nn.key_offset import KeyOffset
from underpar.nn.layers import AllLayers, LayerSet, NoLayers
from underpar.nn.linear import Linear, project_together
from underpar.nn.module import Module
from underpar.nn.norm import EPS
from underpar.nn.pairs import HeadPairs
from underpar.nn.rope import Rope
from underpar.nn.weight_gains import NoWeightGains, WeightGains
from underpar.nn.windows import Windows


@config
class Attention(Config):
    """Heads, positions and gains of every layer.

    q (model_dim, model_dim), k and v (num_kv_heads * head_dim, model_dim), out (model_dim, model_dim); q_gain (num_heads,).
    """

    layers: LayerSet = field(default_factory=AllLayers)
    """Layers that have attention; the others are an MLP alone."""
    num_heads: PositiveInt = 8
    num_kv_heads: PositiveInt = 4
    rope: Rope = field(default_factory=Rope)
    qk_gain_init: PositiveFloat | None = 1.5
    """Where the learned gain of each query head starts; None leaves queries without one."""
    zero_out: bool = True
    """Whether the output projection starts at zero, so that attention adds nothing at first."""
    bias: bool = False
    """Whether the four projections add a learned vector, zero at the start."""
    weight_gains: WeightGains = field(default_factory=NoWeightGains)
    """Learned scalars on the projections."""
    windows: Windows | None = None
    """How far back each layer looks; None is to the start of what attention spans."""
    pairs: HeadPairs | None = None
    """Layers whose heads see each other's keys, two by two."""
    key_offset: KeyOffset | None = None
    """Layers whose keys carry something of the token before. Paired layers have none."""
    exclude_self: LayerSet = field(default_factory=NoLayers)
    """Layers whose head outputs lose the component along the token's own value vector. Source: exclusive self-attention
    (XSA); golf PR #1530 line."""
    gate: OutputGate | None = None
    """A factor on every head's output."""

    def check(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_heads = {self.num_heads} must be a multiple of num_kv_heads = {self.num_kv_heads}")
        if self.pairs is not None and (self.num_heads % 2 or self.num_kv_heads != self.num_heads):
            raise ConfigError(
                f"pairs needs an even number of heads with keys of their own, not num_heads = {self.num_heads} and "
                f"num_kv_heads = {self.num_kv_heads}"
            )

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

    def build(self, model_dim: int, layer: int, num_layers: int) -> "SelfAttention | None":
        """The attention of one layer, or None where it has none."""
        return SelfAttention(self, model_dim, layer, num_layers) if self.layers.contains(layer, num_layers) else None


class SelfAttention(Module):
    """(B, T, model_dim) -> (B, T, model_dim)."""

    q_gain: Tensor

    def __init__(self, config: Attention, model_dim: int, layer: int, num_layers: int) -> None:
        super().__init__()
        here = lambda chosen: chosen is not None and chosen.layers.contains(layer, num_layers)  # noqa: E731
        self.head_dim, self.rope = config.head_dim(model_dim), config.rope
        self.excludes_self = config.exclude_self.contains(layer, num_layers)
        self.pairs = config.pairs if here(config.pairs) else None
        self.key_offset = config.key_offset if here(config.key_offset) and self.pairs is None else None
        self.is_long = config.windows is not None and config.windows.long_layers.contains(layer, num_layers)
        kv_dim = config.num_kv_heads * self.head_dim
        self.q = Linear(model_dim, model_dim, label="attention", bias=config.bias)
        self.k = Linear(model_dim, kv_dim, label="attention", bias=config.bias)
        self.v = Linear(model_dim, kv_dim, label="attention", bias=config.bias)
        self.out = Linear(model_dim, model_dim, zero_init=config.zero_out, label="attention", bias=config.bias)
        self.weight_gains = config.weight_gains.build()
        self.gate: HeadGate | None = config.gate.build(model_dim, config.num_heads) if config.gate else None
        self.num_heads = config.num_heads
        self.has_gain = config.qk_gain_init is not None
        if config.qk_gain_init is not None:
            self.declare("q_gain", torch.full((config.num_heads,), float(config.qk_gain_init)), Role.GAIN)

    def forward(self, x: Tensor, frame: Frame, add_values: AddValues | None = None, visit: Visit = NO_VISIT) -> Tensor:
        """add_values: adds the value embedding of this layer, where it has one."""
        batch, length, dim = x.shape
        projections = {"q": self.q, "k": self.k, "v": self.v}
        operand = self.weight_gains.of_inputs(frame.operand)
        raw_q, raw_k, raw_v = project_together(x, projections, operand, visit)
        q, k, v = (y.view(batch, length, -1, self.head_dim) for y in (raw_q, raw_k, raw_v))
        if add_values is not None:
            v = add_values(v, x)
        y = self._plain(q, k, v, frame) if self.pairs is None else self._paired(q, k, v, frame, self.pairs)
        own = v if self.excludes_self else None
        if self.gate is None:
            y = exclusive_gate(y, own)
        else:
            y = exclusive_gate(y, own, self.gate(x, raw_q), factor=self.gate.factor)
        merged = y.reshape(batch, length, dim)
        return visit("out", merged, self.out(merged, self.weight_gains.of_output(frame.operand)))

    def _plain(self, q: Tensor, k: Tensor, v: Tensor, frame: Frame) -> Tensor:
        q, k = qk_norm_rope(q, k, self._gain(frame.windows, q), *frame.rotation, eps=EPS)
        if self.key_offset is not None:
            k = self.key_offset(k, self.rope.rotated(self.head_dim), frame.ctx)
        return attention(q, k, v, frame.ctx.cu_seqlens, frame.ctx.max_seqlen, self.window(frame.windows))

    def _paired(self, q: Tensor, k: Tensor, v: Tensor, frame: Frame, pairs: HeadPairs) -> Tensor:
        assert frame.paired is not None
        q, k = qk_norm_rope(q, k, self._gain(frame.windows, q), *frame.paired.rotation, eps=EPS)
        longest = 2 * frame.ctx.max_seqlen
        return pairs.merge(
            attention(
                pairs.spread(q),
                pairs.spread(k),
                pairs.spread(v),
                frame.paired.cu_seqlens,
                longest,
                self.window(frame.windows),
            )
        )

    def _gain(self, windows: WindowSizes | None, q: Tensor) -> Tensor:
        """(num_heads,) what queries are multiplied by, the softmax scale in place of its usual 1 / sqrt(head_dim) included."""
        chosen = self.rope.softmax_scale(windows.long if windows else None)
        scale = 1.0 if chosen is None else chosen * self.head_dim**0.5
        if self.has_gain:
            return self.q_gain if chosen is None else scale * self.q_gain
        return torch.full((self.num_heads,), scale, device=q.device)

    def window(self, windows: WindowSizes | None) -> int | None:
        """How many positions a query of this layer sees before its own; None is no bound."""
        if windows is None:
            return None
        return windows.long if self.is_long else windows.short
