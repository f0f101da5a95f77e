"""The compiled forward: one graph per phase and shape, made before the clock starts, and a count of those made after."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from underpar.data.context import Context
from underpar.model.gpt import GPT

MOST_GRAPHS = 64
"""Graphs of one forward before torch gives up. Phases, micro-batch shapes and scoring share them; its own limit is 8."""


def compile_model(model: nn.Module, backend: str = "inductor") -> Callable[..., Tensor]:
    """`model` as full graphs with static shapes, called as the model is: (tokens, targets, context, ...).

    Only the number of segments of packed rows stays symbolic: it differs from step to step, and no kernel depends on it. A
    back end that does depend on it makes one graph per length instead, which the warm-up meets before the clock starts.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    if backend == "inductor":
        _name_operators_briefly()
    graph = torch.compile(model, dynamic=False, fullgraph=True, backend=backend)

    def forward(tokens: Tensor, targets: Tensor, ctx: Context, *rest: Any) -> Tensor:
        if ctx.cu_seqlens is not None:
            torch._dynamo.maybe_mark_dynamic(ctx.cu_seqlens, 0)
        outside = {"looked_up": model.look_up(tokens, ctx)} if isinstance(model, GPT) else {}
        return graph(tokens, targets, ctx, *rest, **outside)

    return forward


def _name_operators_briefly() -> None:
    """Before torch 2.13, inductor formats a log line when it first meets a custom operator, logged or not, that spells out
    the operator's inputs and theirs in turn: exponential where operators feed each other, as ours do. The name will do.
    """
    if torch.__version__ >= (2, 13):  # type: ignore[operator]
        return
    from torch._inductor.exc import OperatorIssue

    OperatorIssue.operator_str = staticmethod(lambda target, _args, _kwargs: f"  target: {target}")  # type: ignore[assignment]


def graphs_compiled() -> int:
    """Graphs that torch.compile has made in this process so far, of anything."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])
