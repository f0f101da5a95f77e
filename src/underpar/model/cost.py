"""What a model costs, computed from its config before anything is trained."""

from dataclasses import dataclass

import torch
from torch import nn

from underpar.core.phase import WindowSizes
from underpar.core.roles import Role
from underpar.model.gpt import GPT, Block, GPTConfig
from underpar.model.plan import executions
from underpar.nn.module import parameter_roles


@dataclass(frozen=True)
class ModelCost:
    """Exact counts of one model at one row length."""

    params: int
    params_by_role: dict[str, int]
    forward_flops_per_token: float
    """Matrix products and causal attention; elementwise work is not counted."""

    @property
    def train_flops_per_token(self) -> float:
        """Forward and backward: three times forward."""
        return 3.0 * self.forward_flops_per_token


def on_meta(config: GPTConfig) -> GPT:
    """The real model without storage: the same code that trains, so counts cannot drift from it."""
    with torch.device("meta"):
        return config.build()


def model_cost(
    config: GPTConfig, seq_len: int, *, looped: bool = True, windows: WindowSizes | None = None
) -> ModelCost:
    """Cost with rows of `seq_len` tokens: without a window a token attends to (seq_len + 1) / 2 positions on average.

    looped: whether recurrent layers run all their passes. windows: of windowed attention; None is the model's own.
    """
    model = on_meta(config)
    roles = parameter_roles(model)
    by_role = {role.value: 0 for role in Role}
    for name, param in model.named_parameters():
        by_role[roles[name]] += param.numel()
    runs = executions(model.plans[looped])
    in_blocks = [_product_params(block) for block in model.blocks]
    outside = _product_params(model) - sum(in_blocks)  # projections of the input, and an untied head
    tied_head = 0 if Role.HEAD in roles.values() else config.vocab_size * config.model_dim
    matrices = sum(in_blocks[layer] for layer in runs) + outside + tied_head
    attention = sum(_attention_flops(model.blocks[layer], config, seq_len, windows) for layer in runs)
    return ModelCost(
        params=model.num_parameters(),
        params_by_role={role: count for role, count in by_role.items() if count},
        forward_flops_per_token=2.0 * matrices + attention,
    )


def _attention_flops(block: nn.Module, config: GPTConfig, seq_len: int, windows: WindowSizes | None) -> float:
    """Per token: scores and their use in one layer."""
    assert isinstance(block, Block)
    attention = block.attention
    if attention is None:
        return 0.0
    own = config.attention.windows
    reach = attention.window(windows or own.sizes()) if own is not None else None
    per_token = 1 if attention.pairs is None else 2  # slots, each with half as many heads
    slots = per_token * seq_len
    seen = slots if reach is None else min(slots, reach + 1)
    mean = seen - seen * (seen - 1) / 2 / slots  # the first ones of a row see fewer
    return 4.0 * config.model_dim * mean


def _product_params(module: nn.Module) -> int:
    """Weights that are multiplied with the activations of every token."""
    roles = parameter_roles(module)
    products = (Role.MATRIX, Role.GATE, Role.HEAD)
    return sum(p.numel() for name, p in module.named_parameters() if roles[name] in products)
