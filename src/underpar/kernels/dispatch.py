"""Can this machine run a Triton kernel on this tensor, and if not, say why, once.

Nothing here imports Triton: the answer is needed on machines that do not have it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeVar

import torch
from torch import Tensor

HAS_TRITON = find_spec("triton") is not None
"""Whether the Triton package is installed."""

AMPERE = (8, 0)
"""First compute capability with bf16 matrix units."""
HOPPER = (9, 0)
"""First compute capability with the bulk tensor copy engine that tensor descriptors use."""

_log = logging.getLogger("underpar.kernels")
_said: set[tuple[str, str]] = set()
_plain = False

F = TypeVar("F", bound=Callable[..., object])


def _constant(function: F) -> F:
    """Let torch.compile call `function` while tracing and keep the answer, instead of breaking the graph at it.

    Sets the mark that torch.compiler.assume_constant_result sets; that function imports torch._dynamo (and Triton with
    it) as soon as it is called, which would cost seconds at every import of this package.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant
def _capability(device_index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device_index)


@_constant
def say_once(operation: str, fact: str) -> bool:
    """Log `fact` about `operation` the first time in this process. Returns True: a traced call needs a constant."""
    if (operation, fact) not in _said:
        _said.add((operation, fact))
        _log.info("%s: %s", operation, fact)
    return True


def why_not_triton(tensor: Tensor, capability: tuple[int, int] = AMPERE) -> str | None:
    """Why a Triton kernel cannot take `tensor`; None when it can. `capability` is the least the kernel needs."""
    if not tensor.is_cuda:
        return f"tensors are on {tensor.device.type}"
    if not HAS_TRITON:
        return "the triton package is not installed"
    if torch.version.hip is not None:
        return "the kernels are written and measured for NVIDIA GPUs"
    have = _capability(tensor.get_device())
    if have < capability:
        return f"compute capability {have[0]}.{have[1]} is below {capability[0]}.{capability[1]}"
    return None


def uses_kernel(operation: str, reason: str | None) -> bool:
    """True when `reason` is None. Otherwise says once that plain torch computes `operation`, and why."""
    if _plain:
        return False
    if reason is None:
        say_once(operation, "Triton kernel")
        return True
    say_once(operation, f"plain torch, because {reason}")
    return False


@contextmanager
def plain_torch() -> Iterator[None]:
    """Inside the block every operation takes its reference: the other side of a comparison. Compiled graphs keep theirs."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before
