"""The compiled forward: one graph per phase and shape, made before the clock starts, and a count of those made after."""

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from underpar.data.context import Context

MOST_GRAPHS = 64
"""Graphs of one forward before torch gives up. Phases, micro-batch shapes and scoring share them; its own limit is 8."""


def compile_model(model: nn.Module, backend: str = "inductor") -> Callable[..., Tensor]:
    """`model` as full graphs with static shapes, called as the model is: (tokens, targets, context, ...).

    Only the number of segments of packed rows stays symbolic: it differs from step to step, and no kernel depends on it. A
    back end that does depend on it makes one graph per length instead, which the warm-up meets before the clock starts.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    graph = torch.compile(model, dynamic=False, fullgraph=True, backend=backend)

    def forward(tokens: Tensor, targets: Tensor, ctx: Context, *rest: Any) -> Tensor:
        if ctx.cu_seqlens is not None:
            torch._dynamo.maybe_mark_dynamic(ctx.cu_seqlens, 0)
        return graph(tokens, targets, ctx, *rest)

    return forward


def graphs_compiled() -> int:
    """Graphs that torch.compile has made in this process so far, of anything."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])
