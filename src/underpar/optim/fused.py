"""Chains of elementwise operations as one kernel."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from torch import Tensor

Result = TypeVar("Result")

_GRAPHS = 64
"""Shapes that one function may meet before torch gives up; its own limit is 8."""


def fused(function: Callable[..., Result]) -> Callable[..., Result]:
    """`function` of tensors, compiled when the first of them is on a GPU: one reading and one writing of each.

    Numbers that change from step to step go in as 0-D tensors on the CPU. Elsewhere the function runs as it is written.
    """
    compiled: list[Callable[..., Result]] = []

    @wraps(function)
    def call(first: Tensor, *rest: Any) -> Result:
        if not first.is_cuda:
            return function(first, *rest)
        if not compiled:
            import torch._dynamo

            torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)
            compiled.append(torch.compile(function, dynamic=False, fullgraph=True))
        return compiled[0](first, *rest)

    return call
