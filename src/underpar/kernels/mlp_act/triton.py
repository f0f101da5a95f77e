"""Two matrix products with the activation in the epilogue, for Hopper. Imported lazily: needs the triton package.

Exploits: tiles move by the bulk tensor copy engine through tensor descriptors (which also zero what lies beyond an edge),
a persistent grid whose flattened loop starts loading the next tile while the last one is stored, and an epilogue in two
halves of the columns, so that its staging buffer leaves shared memory to the pipeline. The weights are small and stay in
L2, so that tiles run through the columns first and a row block of the activations is read from device memory once.
Spared against a matrix product and an elementwise pass: one reading and one writing of (M, F) forward, the same backward.
Loses: where cuBLAS is ahead of Triton by more than that traffic, i.e. for a model_dim of some thousands.
Source: the fused MLP of modded-nanogpt and of the later 16 MB records; Triton's persistent matrix product tutorial.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

UP_TILE = {"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64, "num_warps": 8, "num_stages": 4}
"""Up projection. 3 stages of 48 KiB and a staging buffer of 32 KiB: 176 of the 227 KiB of shared memory."""
GRAD_TILE = {"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64, "AHEAD": 0, "num_warps": 8, "num_stages": 3}
"""Gradient of the pre-activation: 208 KiB, 32 of them for the saved activation; a fourth stage would not fit.

AHEAD: what a program does about the saved tile before the product that it is to scale. 0: nothing, and the epilogue waits for
device memory twice. 1: asks for it in the L2 cache. 2: loads it into registers, which leaves none for a flattened loop.
"""


@triton.jit
def _halves(tile, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Left and right halves of the columns. Each thread holds columns of both: no data moves."""
    return tl.split(tl.permute(tl.reshape(tile, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))


@triton.jit
def _store_activation(post_desc, pre_desc, u, row, column, SLOPE: tl.constexpr):
    if SLOPE > 0:
        pre_desc.store([row, column], u.to(pre_desc.dtype))
    # Of the unrounded number: to round it for this as well would take a slow conversion of every element by itself.
    u = tl.where(u > 0, u, SLOPE * u)
    post_desc.store([row, column], (u * u).to(post_desc.dtype))


@triton.jit
def _up_kernel(
    x_desc, w_desc, post_desc, pre_desc, M, N, K,
    SLOPE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    column_tiles = tl.cdiv(N, BLOCK_N)
    num_tiles = tl.cdiv(M, BLOCK_M) * column_tiles
    for tile in tl.range(tl.program_id(0), num_tiles, tl.num_programs(0), flatten=True):
        row = (tile // column_tiles) * BLOCK_M
        column = (tile % column_tiles) * BLOCK_N
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in range(tl.cdiv(K, BLOCK_K)):
            x = x_desc.load([row, k * BLOCK_K])
            w = w_desc.load([column, k * BLOCK_K])
            acc = tl.dot(x, w.T, acc)
        left, right = _halves(acc, BLOCK_M, BLOCK_N)
        _store_activation(post_desc, pre_desc, left, row, column, SLOPE)
        _store_activation(post_desc, pre_desc, right, row, column + BLOCK_N // 2, SLOPE)


@triton.jit
def _prefetch(ptr, row, column, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Ask for a tile of bf16 to be brought into the L2 cache: one request for each line of 128 bytes."""
    rows = tl.minimum(row + tl.arange(0, BLOCK_M), M - 1)
    columns = tl.minimum(column + 64 * tl.arange(0, BLOCK_N // 64), N - 1)
    address = (ptr + rows.to(tl.int64)[:, None] * N + columns[None, :]).to(tl.int64)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def _loaded_half(ptr, row, column, M, N, BLOCK_M: tl.constexpr, HALF: tl.constexpr):
    rows, columns = row + tl.arange(0, BLOCK_M), column + tl.arange(0, HALF)
    mask = (rows < M)[:, None] & (columns < N)[None, :]
    return tl.load(ptr + rows.to(tl.int64)[:, None] * N + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _store_grad_pre(out_desc, acc, saved, row, column, SLOPE: tl.constexpr):
    saved = saved.to(tl.float32)
    if SLOPE > 0:
        factor = tl.where(saved > 0, 2 * saved, (2 * SLOPE * SLOPE) * saved)
    else:
        factor = 2 * tl.sqrt(saved)  # zero where the pre-activation was not positive
    out_desc.store([row, column], (acc * factor).to(out_desc.dtype))


@triton.jit
def _grad_pre_kernel(
    grad_desc, w_desc, saved_desc, saved_ptr, out_desc, M, N, K,
    SLOPE: tl.constexpr, AHEAD: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    half: tl.constexpr = BLOCK_N // 2
    in_registers: tl.constexpr = AHEAD == 2
    column_tiles = tl.cdiv(N, BLOCK_N)
    num_tiles = tl.cdiv(M, BLOCK_M) * column_tiles
    for tile in tl.range(tl.program_id(0), num_tiles, tl.num_programs(0), flatten=not in_registers):
        row = (tile // column_tiles) * BLOCK_M
        column = (tile % column_tiles) * BLOCK_N
        if AHEAD == 1:
            _prefetch(saved_ptr, row, column, M, N, BLOCK_M, BLOCK_N)
        if in_registers:
            saved_left = _loaded_half(saved_ptr, row, column, M, N, BLOCK_M, half)
            saved_right = _loaded_half(saved_ptr, row, column + half, M, N, BLOCK_M, half)
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in range(tl.cdiv(K, BLOCK_K)):
            grad = grad_desc.load([row, k * BLOCK_K])
            w = w_desc.load([k * BLOCK_K, column])
            acc = tl.dot(grad, w, acc)
        left, right = _halves(acc, BLOCK_M, BLOCK_N)
        if not in_registers:
            saved_left = saved_desc.load([row, column])
        _store_grad_pre(out_desc, left, saved_left, row, column, SLOPE)
        if not in_registers:
            saved_right = saved_desc.load([row, column + half])
        _store_grad_pre(out_desc, right, saved_right, row, column + half, SLOPE)


def _programs(x: Tensor, rows: int, columns: int, tile: dict[str, int]) -> tuple[int]:
    """One program per multiprocessor, or per tile when there are fewer. The interpreter gets two, to cross their loop."""
    resident = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2
    return (min(resident, triton.cdiv(rows, tile["BLOCK_M"]) * triton.cdiv(columns, tile["BLOCK_N"])),)


def _descriptor(tensor: Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(tensor, [rows, columns])


def launch_up(x: Tensor, w_up: Tensor, negative_slope: float, tile: dict[str, int] = UP_TILE) -> tuple[Tensor, Tensor]:
    """post (M, F) and pre, which is empty when the slope is zero."""
    x, w_up = x.contiguous(), w_up.contiguous()
    (num_rows, dim), hidden = x.shape, w_up.shape[0]
    post = torch.empty((num_rows, hidden), dtype=x.dtype, device=x.device)
    pre = torch.empty_like(post) if negative_slope else post.new_empty(0)
    m, n, k = tile["BLOCK_M"], tile["BLOCK_N"], tile["BLOCK_K"]
    if post.numel():
        post_desc = _descriptor(post, m, n // 2)
        _up_kernel[_programs(x, num_rows, hidden, tile)](
            _descriptor(x, m, k),
            _descriptor(w_up, n, k),
            post_desc,
            _descriptor(pre, m, n // 2) if negative_slope else post_desc,
            num_rows,
            hidden,
            dim,
            SLOPE=negative_slope,
            **tile,
        )
    return post, pre


def launch_grad_pre(
    grad: Tensor, w_down: Tensor, saved: Tensor, negative_slope: float, tile: dict[str, int] = GRAD_TILE
) -> Tensor:
    """(grad w_down) * f'(pre), (M, F)."""
    grad, w_down, saved = grad.contiguous(), w_down.contiguous(), saved.contiguous()
    (num_rows, dim), hidden = grad.shape, w_down.shape[1]
    out = torch.empty_like(saved)
    m, n, k = tile["BLOCK_M"], tile["BLOCK_N"], tile["BLOCK_K"]
    if out.numel():
        _grad_pre_kernel[_programs(grad, num_rows, hidden, tile)](
            _descriptor(grad, m, k),
            _descriptor(w_down, k, n),
            _descriptor(saved, m, n // 2),
            saved,
            _descriptor(out, m, n // 2),
            num_rows,
            hidden,
            dim,
            SLOPE=negative_slope,
            **(tile if grad.is_cuda or tile["AHEAD"] != 1 else tile | {"AHEAD": 0}),  # the interpreter has no caches
        )
    return out
