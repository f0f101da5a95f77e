"""The model: one forward, walked along a layer plan, for training, scoring, calibration and adaptation alike."""

from typing import Annotated

import torch
from torch import Tensor, nn

from underpar.core.config import Config, PositiveInt, Range, config, field
from underpar.core.errors import ConfigError
from underpar.core.roles import Role
from underpar.data.context import Context
from underpar.model.plan import Pop, Push, Run, Topology, UNet, skip_rows, validate_plan
from underpar.nn.attention import Attention
from underpar.nn.embeddings import Embedding, Head, TiedHead
from underpar.nn.mlp import MLP
from underpar.nn.module import Module
from underpar.nn.norm import rms_norm
from underpar.nn.residual import InputMix, ResidualMix, SkipConnections


@config
class GPTConfig(Config):
    """The architecture, complete: an artifact stores this tree and can rebuild its model from it alone."""

    vocab_size: PositiveInt = 1024
    num_layers: Annotated[int, Range(at_least=1, at_most=1_000)] = 9
    """Bounded, as `model_dim` is, because an artifact's header is somebody else's claim until its tensors have been read."""
    model_dim: Annotated[int, Range(at_least=1, at_most=65_536)] = 512
    embedding: Embedding = field(default_factory=Embedding)
    attention: Attention = field(default_factory=Attention)
    mlp: MLP = field(default_factory=MLP)
    residual: ResidualMix = field(default_factory=InputMix)
    topology: Topology = field(default_factory=UNet)
    head: Head = field(default_factory=TiedHead)

    def check(self) -> None:
        if self.vocab_size > 65_536:
            raise ConfigError(f"vocab_size = {self.vocab_size} is over 65,536, the most that 16-bit shards can hold")
        self.attention.head_dim(self.model_dim)
        self.mlp.hidden_dim(self.model_dim)
        validate_plan(self.topology.plan(self.num_layers), self.num_layers)

    def build(self) -> "GPT":
        """A freshly initialised model on the CPU, drawn from torch's default generator."""
        return GPT(self)


class Block(Module):
    """x_in = mix(x, x0); x = x_in + attn_scale * attention(norm(x_in)); x = x + mlp_scale * mlp(norm(x))."""

    attn_scale: Tensor
    mlp_scale: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.residual = config.residual.build(config.model_dim)
        self.attention = config.attention.build(config.model_dim)
        self.mlp = config.mlp.build(config.model_dim)
        self.declare("attn_scale", torch.ones(config.model_dim), Role.GAIN)
        self.declare("mlp_scale", torch.ones(config.model_dim), Role.GAIN)

    def forward(self, x: Tensor, x0: Tensor, ctx: Context) -> Tensor:
        x = self.residual(x, x0)
        x = x + self.attn_scale.to(x.dtype) * self.attention(rms_norm(x), ctx)
        return x + self.mlp_scale.to(x.dtype) * self.mlp(rms_norm(x))


class GPT(Module):
    """A decoder-only language model.

    `compute_dtype` is the dtype of the activations: weights are kept as declared and cast at use.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.plan = config.topology.plan(config.num_layers)
        self.embedding = config.embedding.build(config.vocab_size, config.model_dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        rows = skip_rows(self.plan)
        self.skips: nn.Module = SkipConnections(rows, config.model_dim) if rows else nn.Identity()
        self.head = config.head.build(self.embedding, config.vocab_size, config.model_dim)

    def hidden(self, tokens: Tensor, ctx: Context) -> Tensor:
        """Final normalised hidden states. tokens: (B, T) int64. Returns (B, T, model_dim) in `compute_dtype`."""
        x = x0 = rms_norm(self.embedding(tokens, self.compute_dtype))
        saved: list[Tensor] = []
        for step in self.plan:
            match step:
                case Run(layer):
                    x = self.blocks[layer](x, x0, ctx)
                case Push():
                    saved.append(x)
                case Pop(row):
                    x = self.skips(x, saved.pop(), row)
        return rms_norm(x)

    def forward(self, tokens: Tensor, targets: Tensor, ctx: Context) -> Tensor:
        """Loss of every position in nats: (B, T) int64 tokens and targets -> (B, T) float32."""
        return self.head.losses(self.hidden(tokens, ctx), targets)

    def logits(self, tokens: Tensor, ctx: Context) -> Tensor:
        """(B, T, vocab_size) float32 soft-capped logits."""
        return self.head.logits(self.hidden(tokens, ctx))

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())
