"""QK norm, rotary positions and query gain in one pass, for NVIDIA GPUs. Imported lazily: needs the triton package.

Exploits: a rotation keeps lengths, so the norm and the gain are one factor per head and row, applied after it, and the
gradient of the gain is the inner product that the gradient of the norm needs anyway. A program holds all heads of a few
tokens. Each element meets the other half of its pair by a second load of the same cache line. Traffic: forward one reading
and one writing, backward two readings and one writing; at 8 + 4 heads of 64 in bf16 that is 3,072 and 4,608 bytes a token,
and tables of 16 rotated dimensions add 64 to each. From one packed projection the gradient is written packed, which spares
the concatenation of three gradients. The gain's gradient goes through one row of partial sums per program: no atomics, the
same bits every time.
Loses: nothing known at head sizes that are powers of two; others take the reference.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048
"""Query elements a program aims to hold: 16 for each of its 128 threads, two 16-byte accesses of bf16."""


@triton.jit
def _tokens(num_times, TOKENS: tl.constexpr):
    """Index, batch and time of this program's tokens, for 64-bit offsets. A 64-bit division would be a function call."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    batch = token // num_times
    return token.to(tl.int64), batch.to(tl.int64), (token - batch * num_times).to(tl.int64)


@triton.jit
def _rows(ptr, token_offset, stride_head, PADDED: tl.constexpr):
    """Pointers (TOKENS, PADDED, 1) to the first element of every head of every token."""
    heads = tl.arange(0, PADDED)
    return ptr + token_offset[:, None, None] + (heads * stride_head)[None, :, None]


@triton.jit
def _exists(token_exists, HEADS: tl.constexpr, PADDED: tl.constexpr):
    return token_exists[:, None, None] & (tl.arange(0, PADDED) < HEADS)[None, :, None]


@triton.jit
def _partner(DIM: tl.constexpr, ROTATED: tl.constexpr):
    """Of every element of a head, the index of the other one of its rotated pair; its own index beyond the rotation."""
    dims = tl.arange(0, DIM)
    half: tl.constexpr = ROTATED // 2
    return tl.where(dims < half, dims + half, tl.where(dims < ROTATED, dims - half, dims))


@triton.jit
def _angles(
    cos_ptr, sin_ptr, position, exists,
    PADDED: tl.constexpr, DIM: tl.constexpr, ROTATED: tl.constexpr, ANGLES: tl.constexpr,
):  # fmt: skip
    """cos and signed sin, (TOKENS, PADDED, DIM) fp32, such that x * cos + partner * sin is the rotation of x.

    Every head reads the angles of its token itself, from the L1 cache: to share one reading, they would have to pass
    through shared memory, with barriers.
    """
    dims = tl.arange(0, DIM)
    half: tl.constexpr = ROTATED // 2
    heads = ((tl.arange(0, PADDED) % ANGLES) * half)[None, :, None]
    own = tl.where(dims < half, dims, dims - half)[None, None, :]
    offset = (position * (ANGLES * half))[:, None, None] + heads + own
    mask = exists & (dims < ROTATED)[None, None, :]
    cos = tl.load(cos_ptr + offset, mask=mask, other=1.0).to(tl.float32)
    sin = tl.load(sin_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    return cos, tl.where((dims < half)[None, None, :], sin, -sin)


@triton.jit
def _with_partner(row, exists, DIM: tl.constexpr, ROTATED: tl.constexpr):
    """Elements of every head and, where they are rotated, the other ones of their pairs; 0 elsewhere."""
    dims = tl.arange(0, DIM)
    x = tl.load(row + dims[None, None, :], mask=exists, other=0.0).to(tl.float32)
    rotated = exists & (dims < ROTATED)[None, None, :]
    pair = tl.load(row + _partner(DIM, ROTATED)[None, None, :], mask=rotated, other=0.0).to(tl.float32)
    return x, pair


@triton.jit
def _normed_and_rotated(row, out_row, exists, gain, cos, sin, eps, DIM: tl.constexpr, ROTATED: tl.constexpr):
    x, pair = _with_partner(row, exists, DIM, ROTATED)
    scale = tl.rsqrt(tl.sum(x * x, 2) / DIM + eps) * gain
    out = (x * cos + pair * sin) * scale[:, :, None]
    tl.store(out_row + tl.arange(0, DIM)[None, None, :], out.to(out_row.dtype.element_ty), mask=exists)


@triton.jit
def _gradient(grad_row, row, out_row, exists, gain, cos, sin, eps, DIM: tl.constexpr, ROTATED: tl.constexpr):
    """Stores the gradient of x; returns <gradient, normed x> of every head and token, whose sum is the gain's gradient."""
    dims = tl.arange(0, DIM)[None, None, :]
    grad, pair = _with_partner(grad_row, exists, DIM, ROTATED)
    x = tl.load(row + dims, mask=exists, other=0.0).to(tl.float32)
    grad = grad * cos - pair * sin
    inverse_rms = tl.rsqrt(tl.sum(x * x, 2) / DIM + eps)
    x = x * inverse_rms[:, :, None]
    inner = tl.sum(grad * x, 2)
    out = (gain * inverse_rms)[:, :, None] * (grad - x * (inner / DIM)[:, :, None])
    tl.store(out_row + dims, out.to(out_row.dtype.element_ty), mask=exists)
    return inner


@triton.jit
def _copied(row, out_row, exists, DIM: tl.constexpr):
    dims = tl.arange(0, DIM)[None, None, :]
    tl.store(out_row + dims, tl.load(row + dims, mask=exists), mask=exists)


@triton.jit
def _qk_norm_rope_forward(
    q_ptr, q_batch, q_time, q_head,
    k_ptr, k_batch, k_time, k_head,
    v_ptr, v_batch, v_time, v_head,
    out_q_ptr, out_k_ptr, out_v_ptr,
    gain_ptr, cos_ptr, sin_ptr,
    num_tokens, num_times, eps,
    HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr, PADDED_KV_HEADS: tl.constexpr,
    DIM: tl.constexpr, ROTATED: tl.constexpr, ANGLES: tl.constexpr, TOKENS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    token, batch, time = _tokens(num_times, TOKENS)
    token_exists = token < num_tokens

    exists = _exists(token_exists, HEADS, PADDED_HEADS)
    cos, sin = _angles(cos_ptr, sin_ptr, time, exists, PADDED_HEADS, DIM, ROTATED, ANGLES)
    heads = tl.arange(0, PADDED_HEADS)
    gain = tl.load(gain_ptr + heads, mask=heads < HEADS, other=0.0).to(tl.float32)[None, :]
    row = _rows(q_ptr, batch * q_batch + time * q_time, q_head, PADDED_HEADS)
    out_row = _rows(out_q_ptr, token * (HEADS * DIM), DIM, PADDED_HEADS)
    _normed_and_rotated(row, out_row, exists, gain, cos, sin, eps, DIM, ROTATED)

    exists = _exists(token_exists, KV_HEADS, PADDED_KV_HEADS)
    cos, sin = _angles(cos_ptr, sin_ptr, time, exists, PADDED_KV_HEADS, DIM, ROTATED, ANGLES)
    row = _rows(k_ptr, batch * k_batch + time * k_time, k_head, PADDED_KV_HEADS)
    out_row = _rows(out_k_ptr, token * (KV_HEADS * DIM), DIM, PADDED_KV_HEADS)
    _normed_and_rotated(row, out_row, exists, 1.0, cos, sin, eps, DIM, ROTATED)

    if PACKED:
        row = _rows(v_ptr, batch * v_batch + time * v_time, v_head, PADDED_KV_HEADS)
        _copied(row, _rows(out_v_ptr, token * (KV_HEADS * DIM), DIM, PADDED_KV_HEADS), exists, DIM)


@triton.jit
def _qk_norm_rope_backward(
    grad_q_ptr, grad_q_batch, grad_q_time, grad_q_head,
    grad_k_ptr, grad_k_batch, grad_k_time, grad_k_head,
    grad_v_ptr, grad_v_batch, grad_v_time, grad_v_head,
    q_ptr, q_batch, q_time, q_head,
    k_ptr, k_batch, k_time, k_head,
    out_q_ptr, out_q_token, out_k_ptr, out_k_token, out_v_ptr, out_v_token,
    partial_gain_ptr, gain_ptr, cos_ptr, sin_ptr,
    num_tokens, num_times, eps,
    HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr, PADDED_KV_HEADS: tl.constexpr,
    DIM: tl.constexpr, ROTATED: tl.constexpr, ANGLES: tl.constexpr, TOKENS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    token, batch, time = _tokens(num_times, TOKENS)
    token_exists = token < num_tokens

    exists = _exists(token_exists, HEADS, PADDED_HEADS)
    cos, sin = _angles(cos_ptr, sin_ptr, time, exists, PADDED_HEADS, DIM, ROTATED, ANGLES)
    heads = tl.arange(0, PADDED_HEADS)
    gain = tl.load(gain_ptr + heads, mask=heads < HEADS, other=0.0).to(tl.float32)[None, :]
    grad_row = _rows(grad_q_ptr, batch * grad_q_batch + time * grad_q_time, grad_q_head, PADDED_HEADS)
    row = _rows(q_ptr, batch * q_batch + time * q_time, q_head, PADDED_HEADS)
    out_row = _rows(out_q_ptr, token * out_q_token, DIM, PADDED_HEADS)
    inner = _gradient(grad_row, row, out_row, exists, gain, cos, sin, eps, DIM, ROTATED)
    tl.store(partial_gain_ptr + tl.program_id(0) * HEADS + heads, tl.sum(inner, 0), mask=heads < HEADS)

    exists = _exists(token_exists, KV_HEADS, PADDED_KV_HEADS)
    cos, sin = _angles(cos_ptr, sin_ptr, time, exists, PADDED_KV_HEADS, DIM, ROTATED, ANGLES)
    grad_row = _rows(grad_k_ptr, batch * grad_k_batch + time * grad_k_time, grad_k_head, PADDED_KV_HEADS)
    row = _rows(k_ptr, batch * k_batch + time * k_time, k_head, PADDED_KV_HEADS)
    out_row = _rows(out_k_ptr, token * out_k_token, DIM, PADDED_KV_HEADS)
    _gradient(grad_row, row, out_row, exists, 1.0, cos, sin, eps, DIM, ROTATED)

    if PACKED:
        row = _rows(grad_v_ptr, batch * grad_v_batch + time * grad_v_time, grad_v_head, PADDED_KV_HEADS)
        _copied(row, _rows(out_v_ptr, token * out_v_token, DIM, PADDED_KV_HEADS), exists, DIM)


def default_tile(heads: int, dim: int) -> dict[str, int]:
    return {"TOKENS": max(1, TILE // (triton.next_power_of_2(heads) * dim)), "num_warps": 4}


def _sizes(q: Tensor, k: Tensor, cos: Tensor, packed: bool, tile: dict[str, int] | None) -> dict[str, int | bool]:
    heads, kv_heads, dim = q.shape[2], k.shape[2], q.shape[3]
    return {
        "HEADS": heads,
        "PADDED_HEADS": triton.next_power_of_2(heads),
        "KV_HEADS": kv_heads,
        "PADDED_KV_HEADS": triton.next_power_of_2(kv_heads),
        "DIM": dim,
        "ROTATED": 2 * cos.shape[-1],
        "ANGLES": 1 if cos.ndim == 2 else cos.shape[1],
        "PACKED": packed,
        **(tile or default_tile(heads, dim)),
    }


def _strided(tensors: tuple[Tensor, ...]) -> list[Tensor | int]:
    """Three times a tensor and its batch, time and head strides. Without v, k stands in for it and is not touched."""
    rows = [x if x.stride(3) == 1 else x.contiguous() for x in (*tensors, tensors[1])[:3]]
    return [value for x in rows for value in (x, x.stride(0), x.stride(1), x.stride(2))]


def launch_forward(
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    gain: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    tile: dict[str, int] | None = None,
) -> None:
    """Fill `outputs`, contiguous q', k' and, for a packed projection, v, from `inputs` of any strides."""
    q, k = inputs[:2]
    sizes = _sizes(q, k, cos, len(inputs) == 3, tile)
    num_tokens = q.shape[0] * q.shape[1]
    if num_tokens:
        _qk_norm_rope_forward[(triton.cdiv(num_tokens, sizes["TOKENS"]),)](
            *_strided(inputs),
            *(*outputs, outputs[1])[:3],
            gain.contiguous(),
            cos.contiguous(),
            sin.contiguous(),
            num_tokens,
            q.shape[1],
            eps,
            **sizes,
        )


def launch_backward(
    grads: tuple[Tensor, ...],
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    gain: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    tile: dict[str, int] | None = None,
) -> Tensor:
    """Fill `outputs`, whose tokens follow each other at one stride, with the gradients of `inputs`; return the gain's."""
    q, k = inputs[:2]
    sizes = _sizes(q, k, cos, len(inputs) == 3, tile)
    num_tokens = q.shape[0] * q.shape[1]
    programs = triton.cdiv(num_tokens, sizes["TOKENS"])
    partial_gain = torch.empty((programs, q.shape[2]), dtype=torch.float32, device=q.device)
    if num_tokens:
        _qk_norm_rope_backward[(programs,)](
            *_strided(grads),
            *_strided((q, k))[:8],
            *(value for out in (*outputs, outputs[1])[:3] for value in (out, out.stride(1))),
            partial_gain,
            gain.contiguous(),
            cos.contiguous(),
            sin.contiguous(),
            num_tokens,
            q.shape[1],
            eps,
            **sizes,
        )
    return partial_gain.sum(0)
