"""Exclusive self-attention and the output gate in one pass, for NVIDIA GPUs. Imported lazily: needs the triton package.

Exploits: everything is local to a kv head of a token, so a program takes some of those, reads the value vector once for
all query heads of its group and, going back, sums the value's gradient in registers. Nothing is saved but the inputs.
Fewest bytes a token of 8 query and 4 kv heads of 64 in bf16: forward 2,576 (y 1,024, v 512 and 8 gate logits in, 1,024
out), backward 4,128 (two gradients' worth of y, y, v and the logits in and out once each); without a gate 2,560 and 4,096.
Loses: nothing known at head sizes that are powers of two; others take the reference.
Source: exclusive self-attention and the head gates of the later 16 MB records.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from underpar.kernels.exclusive_gate.ref import EPS

FORWARD_TILE = {"ROWS": 32, "num_warps": 4}
"""Kv heads a program takes: 16 elements of y for each of its threads at a head size of 64."""
BACKWARD_TILE = {"ROWS": 16, "num_warps": 4}
"""Eight elements each of four tensors and two sums keep a thread within 64 registers."""


@triton.jit
def _direction(v, LEAST: tl.constexpr):
    """v / max(||v||, LEAST) and ||v|| of every row."""
    length = tl.sqrt(tl.sum(v * v, 1))
    return v / tl.maximum(length, LEAST)[:, None], length


@triton.jit
def _exclusive_gate_forward(
    y_ptr, y_token, y_head, v_ptr, v_token, v_head, logits_ptr, logits_token, logits_head,
    out_ptr, num_rows, factor,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
    EXCLUSIVE: tl.constexpr, GATED: tl.constexpr, LEAST: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = row < num_rows
    token, kv_head = (row // KV_HEADS).to(tl.int64), row % KV_HEADS
    mask, dims = exists[:, None], tl.arange(0, DIM)[None, :]
    if EXCLUSIVE:
        v = tl.load(v_ptr + (token * v_token + kv_head * v_head)[:, None] + dims, mask=mask, other=0.0)
        direction, _ = _direction(v.to(tl.float32), LEAST)
    for member in tl.static_range(GROUP):
        head = kv_head * GROUP + member
        y = tl.load(y_ptr + (token * y_token + head * y_head)[:, None] + dims, mask=mask, other=0.0).to(tl.float32)
        if EXCLUSIVE:
            y -= tl.sum(y * direction, 1)[:, None] * direction
        if GATED:
            logit = tl.load(logits_ptr + token * logits_token + head * logits_head, mask=exists, other=0.0)
            y *= (factor * tl.sigmoid(logit.to(tl.float32)))[:, None]
        out = out_ptr + ((token * (KV_HEADS * GROUP) + head) * DIM)[:, None] + dims
        tl.store(out, y.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _exclusive_gate_backward(
    grad_ptr, grad_token, grad_head,
    y_ptr, y_token, y_head, v_ptr, v_token, v_head, logits_ptr, logits_token, logits_head,
    grad_y_ptr, grad_v_ptr, grad_logits_ptr, num_rows, factor,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
    EXCLUSIVE: tl.constexpr, GATED: tl.constexpr, LEAST: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = row < num_rows
    token, kv_head = (row // KV_HEADS).to(tl.int64), row % KV_HEADS
    mask, dims = exists[:, None], tl.arange(0, DIM)[None, :]
    grad_direction = tl.zeros((ROWS, DIM), tl.float32)
    if EXCLUSIVE:
        v = tl.load(v_ptr + (token * v_token + kv_head * v_head)[:, None] + dims, mask=mask, other=0.0)
        direction, length = _direction(v.to(tl.float32), LEAST)
    for member in tl.static_range(GROUP):
        head = kv_head * GROUP + member
        out_head = token * (KV_HEADS * GROUP) + head
        grad = tl.load(grad_ptr + (token * grad_token + head * grad_head)[:, None] + dims, mask=mask, other=0.0)
        grad = grad.to(tl.float32)
        if EXCLUSIVE or GATED:
            y = tl.load(y_ptr + (token * y_token + head * y_head)[:, None] + dims, mask=mask, other=0.0).to(tl.float32)
        if EXCLUSIVE:
            y_along, grad_along = tl.sum(y * direction, 1), tl.sum(grad * direction, 1)
        if GATED:
            logit = tl.load(logits_ptr + token * logits_token + head * logits_head, mask=exists, other=0.0)
            open_share = tl.sigmoid(logit.to(tl.float32))
            inner = tl.sum(grad * y, 1)
            if EXCLUSIVE:
                inner -= y_along * grad_along
            gate = factor * open_share
            grad_logit = inner * gate * (1 - open_share)
            tl.store(grad_logits_ptr + out_head, grad_logit.to(grad_logits_ptr.dtype.element_ty), mask=exists)
            grad *= gate[:, None]
            if EXCLUSIVE:
                grad_along *= gate
        if EXCLUSIVE:
            grad_direction -= grad_along[:, None] * y + y_along[:, None] * grad
            grad -= grad_along[:, None] * direction
        grad_y = grad_y_ptr + (out_head * DIM)[:, None] + dims
        tl.store(grad_y, grad.to(grad_y_ptr.dtype.element_ty), mask=mask)
    if EXCLUSIVE:
        # A length under LEAST is a constant: the direction is then v / LEAST, without the part along itself.
        along = tl.where(length > LEAST, tl.sum(grad_direction * direction, 1), 0.0)
        grad_v = (grad_direction - along[:, None] * direction) / tl.maximum(length, LEAST)[:, None]
        out = grad_v_ptr + ((token * KV_HEADS + kv_head) * DIM)[:, None] + dims
        tl.store(out, grad_v.to(grad_v_ptr.dtype.element_ty), mask=mask)


def _sizes(y: Tensor, v: Tensor | None, logits: Tensor | None) -> dict[str, Any]:
    kv_heads = y.shape[2] if v is None else v.shape[2]
    return {
        "KV_HEADS": kv_heads,
        "GROUP": y.shape[2] // kv_heads,
        "DIM": y.shape[3],
        "EXCLUSIVE": v is not None,
        "GATED": logits is not None,
        "LEAST": EPS,
    }


def _rows(x: Tensor | None, stand_in: Tensor) -> list[Tensor | int]:
    """A tensor with its token and head strides; one that is absent is not touched and anything stands in for it."""
    if x is None:
        return [stand_in, 0, 0]
    if x.ndim == 4 and x.stride(3) != 1:
        x = x.contiguous()
    tokens = x.flatten(0, 1)  # a view whenever the rows follow each other at one stride
    return [tokens, tokens.stride(0), tokens.stride(1)]


def launch_forward(
    y: Tensor, v: Tensor | None, logits: Tensor | None, factor: float, tile: dict[str, int] = FORWARD_TILE
) -> Tensor:
    """(B, T, H, D) contiguous."""
    sizes = _sizes(y, v, logits)
    out = torch.empty(y.shape, dtype=y.dtype, device=y.device)
    num_rows = y.shape[0] * y.shape[1] * sizes["KV_HEADS"]
    if out.numel():
        inputs = [value for x in (y, v, logits) for value in _rows(x, out)]
        grid = (triton.cdiv(num_rows, tile["ROWS"]),)
        _exclusive_gate_forward[grid](*inputs, out, num_rows, factor, **sizes, **tile)
    return out


def launch_backward(
    grad: Tensor,
    y: Tensor,
    v: Tensor | None,
    logits: Tensor | None,
    factor: float,
    tile: dict[str, int] = BACKWARD_TILE,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of y, v and the logits, contiguous; of what is absent, empty."""
    sizes = _sizes(y, v, logits)
    grad_y, grad_v, grad_logits = (
        torch.empty((0,) if x is None else x.shape, dtype=y.dtype if x is None else x.dtype, device=y.device)
        for x in (y, v, logits)
    )
    num_rows = y.shape[0] * y.shape[1] * sizes["KV_HEADS"]
    if grad_y.numel():
        inputs = [value for x in (grad, y, v, logits) for value in _rows(x, grad_y)]
        grid = (triton.cdiv(num_rows, tile["ROWS"]),)
        outputs = (grad_y, grad_v, grad_logits)
        _exclusive_gate_backward[grid](*inputs, *outputs, num_rows, factor, **sizes, **tile)
    return grad_y, grad_v, grad_logits
