"""Causal attention over dense rows or packed documents: one entry point that picks the fastest back end it can use.

| back end  | when                                                                              |
|-----------|-----------------------------------------------------------------------------------|
| flash4    | Hopper and newer with flash-attn-4: packed documents, dense rows of 2,048 and more |
| cudnn     | Hopper and newer: other dense rows                                                 |
| flash     | other CUDA devices: dense rows                                                     |
| varlen    | CUDA without flash-attn-4: packed documents                                        |
| reference | everything else: float32, CPU                                                      |

With a window, dense rows go the way of packed documents on CUDA: cuDNN and SDPA take windows only as masks of T^2 bits.

`forced(name)` pins one, for benchmarks and parity tests. The figures behind the choice are in LOG.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from underpar.core.errors import ConfigError, suggest
from underpar.kernels.attention import flash4
from underpar.kernels.attention.ref import packed_attention_ref

BACKENDS = ("flash4", "cudnn", "flash", "varlen", "reference")
FLASH4_FROM_TOKENS = 2048
"""Shorter dense rows are faster in cuDNN."""
_forced: str | None = None
_TAKES_GROUPS = torch.__version__ >= (2, 12)  # type: ignore[operator]


@contextmanager
def forced(name: str | None) -> Iterator[None]:
    """Use back end `name` inside the block (None: choose as usual). Compiled models keep what they were traced with."""
    global _forced
    if name is not None and name not in BACKENDS:
        raise ConfigError(f"no attention back end '{name}'; {suggest(name, BACKENDS)}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def backend_for(device: torch.device, dtype: torch.dtype, *, packed: bool, row_tokens: int) -> str:
    """The back end that `attention` uses for such inputs."""
    if _forced is not None:
        return _forced
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return "reference"
    is_hopper = torch.cuda.get_device_capability(device)[0] >= 9
    if is_hopper and flash4.IS_INSTALLED and (packed or row_tokens >= FLASH4_FROM_TOKENS):
        return "flash4"
    if packed:
        return "varlen"
    return "cudnn" if is_hopper else "flash"


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None = None,
    max_seqlen: int = 0,
    window: int | None = None,
) -> Tensor:
    """Softmax(q k^T / sqrt(D)) v, causal.

    q: (B, T, H, D); k, v: (B, T, Hkv, D), H a multiple of Hkv, query head h reading kv head h // (H / Hkv).
    cu_seqlens: (S + 1,) int32, with B = 1: attention stays inside each segment; `max_seqlen` bounds their length.
    window: a query sees itself and at most so many positions before it; None is no bound. A constant of a compiled graph.
    Returns (B, T, H, D).
    """
    if window is not None and window >= (q.shape[1] if cu_seqlens is None else max_seqlen) - 1:
        window = None
    windowed_rows = cu_seqlens is None and window is not None and q.is_cuda
    if windowed_rows:
        shape, length = q.shape, q.shape[1]
        q, k, v = (x.flatten(0, 1).unsqueeze(0) for x in (q, k, v))
        cu_seqlens = torch.arange(0, q.shape[1] + 1, length, dtype=torch.int32, device=q.device)
        max_seqlen = length
    backend = backend_for(q.device, q.dtype, packed=cu_seqlens is not None, row_tokens=q.shape[1])
    grouped = q.shape[2] != k.shape[2]
    if cu_seqlens is None:
        return _dense(q, k, v, backend, grouped) if window is None else packed_attention_ref(q, k, v, None, window)
    if backend == "flash4":
        out = flash4.flash4_attention(q[0], k[0], v[0], cu_seqlens, max_seqlen, window).unsqueeze(0)
    elif backend == "varlen":
        out = _packed(q[0], k[0], v[0], cu_seqlens, max_seqlen, grouped, window).unsqueeze(0)
    else:
        out = packed_attention_ref(q, k, v, cu_seqlens, window)
    return out.view(shape) if windowed_rows else out


def _packed(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, grouped: bool, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {}
    if grouped and _TAKES_GROUPS:
        options["enable_gqa"] = True
    elif grouped:  # torch 2.11 has no grouped queries here: spell the shared heads out
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    causal = (-1 if window is None else window, 0)  # -1: any distance back; 0: none ahead
    out = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, window_size=causal, **options)
    assert isinstance(out, Tensor)
    return out


def _dense(q: Tensor, k: Tensor, v: Tensor, backend: str, grouped: bool) -> Tensor:
    if backend == "flash4":
        return flash4.flash4_attention(q, k, v, None, 0)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if backend == "reference":
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    else:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION if backend == "cudnn" else SDPBackend.FLASH_ATTENTION):
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    return out.transpose(1, 2)
