"""flash-attn-4 (CuTe, Hopper and newer) as a torch operation that compiles into a full graph.

The package traces neither under torch.compile nor without a GPU; as an opaque custom op with declared shapes, forward and
backward, it does. Optional: `pip install underpar[fast]`. Source: T. Dao et al., FlashAttention-3 and -4.
"""

import functools
import warnings
from importlib.util import find_spec

import torch
from torch import Tensor

IS_INSTALLED = find_spec("flash_attn") is not None and find_spec("cutlass") is not None
"""Whether the optional package is there; it is imported at the first call."""


def flash4_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, max_seqlen: int, window: int | None = None
) -> Tensor:
    """Causal attention. Dense: q (B, T, H, D), k and v (B, T, Hkv, D). Packed: the same without B, and cu_seqlens."""
    return _forward(q, k, v, cu_seqlens, max_seqlen, window)[0]


@torch.library.custom_op("underpar::flash4", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, max_seqlen: int, window: int | None
) -> tuple[Tensor, Tensor]:
    from flash_attn.cute.interface import _flash_attn_fwd

    _quieten()
    options = _segments(cu_seqlens, max_seqlen) | _reach(window)
    out, lse, *_ = _flash_attn_fwd(q, k, v, **options, causal=True, return_lse=True)
    return out, lse


@_forward.register_fake
def _forward_shapes(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, max_seqlen: int, window: int | None
) -> tuple[Tensor, Tensor]:
    *batch, length, heads, _ = q.shape
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(
        (*batch, heads, length), dtype=torch.float32
    )


@torch.library.custom_op("underpar::flash4_backward", mutates_args=())
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    grad: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor | None,
    max_seqlen: int,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    from flash_attn.cute.interface import _flash_attn_bwd

    # None stands for the default scale; gradients are made fresh and contiguous.
    options = _segments(cu_seqlens, max_seqlen) | _reach(window)
    found = _flash_attn_bwd(q, k, v, out, grad.contiguous(), lse, None, True, **options)
    return found[0], found[1], found[2]


@_backward.register_fake
def _backward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    grad: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor | None,
    max_seqlen: int,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


@functools.cache
def _quieten() -> None:
    """The package warns of itself at every compilation."""
    warnings.filterwarnings("ignore", message="Argument aux_data")


def _segments(cu_seqlens: Tensor | None, max_seqlen: int) -> dict[str, object]:
    if cu_seqlens is None:
        return {}
    return {
        "cu_seqlens_q": cu_seqlens,
        "cu_seqlens_k": cu_seqlens,
        "max_seqlen_q": max_seqlen,
        "max_seqlen_k": max_seqlen,
    }


def _reach(window: int | None) -> dict[str, object]:
    return {} if window is None else {"window_size_left": window, "window_size_right": 0}


def _save(ctx: object, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens, max_seqlen, window = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens)  # type: ignore[attr-defined]
    ctx.max_seqlen, ctx.window = max_seqlen, window  # type: ignore[attr-defined]


def _gradient(ctx: object, grad: Tensor, _lse_grad: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, cu_seqlens = ctx.saved_tensors  # type: ignore[attr-defined]
    max_seqlen, window = ctx.max_seqlen, ctx.window  # type: ignore[attr-defined]
    return (*_backward(q, k, v, out, grad, lse, cu_seqlens, max_seqlen, window), None, None, None)


_forward.register_autograd(_gradient, setup_context=_save)
