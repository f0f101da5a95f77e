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

UP_TILE = {"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64, "num_warps": 8, "num_stages": 3}
"""Up projection. 3 stages of 48 KiB and a staging buffer of 32 KiB: 176 of the 227 KiB of shared memory."""
GRAD_TILE = {"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64, "num_warps": 8, "num_stages": 3}
"""Gradient of the pre-activation: 208 KiB, 32 of them for the saved activation; a fourth stage would not fit."""


@triton.jit
def _halves(tile, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Left and right halves of the columns. Each thread holds columns of both: no data moves."""
    return tl.split(tl.permute(tl.reshape(tile, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))


@triton.jit
def _store_activation(post_desc, pre_desc, acc, row, column, SLOPE: tl.constexpr):
    # Rounded first: the derivative is taken at the number that is kept, as plain torch does.
    pre = acc.to(post_desc.dtype)
    if SLOPE > 0:
        pre_desc.store([row, column], pre)
    u = pre.to(tl.float32)
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
def _store_grad_pre(saved_desc, out_desc, acc, row, column, SLOPE: tl.constexpr):
    saved = saved_desc.load([row, column])
    if SLOPE > 0:
        u = saved.to(tl.float32)
        factor = tl.where(u > 0, 2 * u, (2 * SLOPE * SLOPE) * u)
    else:
        # Rounding the root gives back the pre-activation as it was rounded; zero where that was not positive.
        factor = 2 * tl.sqrt(saved.to(tl.float32)).to(saved_desc.dtype).to(tl.float32)
    out_desc.store([row, column], (acc * factor).to(out_desc.dtype))


@triton.jit
def _grad_pre_kernel(
    grad_desc, w_desc, saved_desc, out_desc, M, N, K,
    SLOPE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    column_tiles = tl.cdiv(N, BLOCK_N)
    num_tiles = tl.cdiv(M, BLOCK_M) * column_tiles
    for tile in tl.range(tl.program_id(0), num_tiles, tl.num_programs(0), flatten=True):
        row = (tile // column_tiles) * BLOCK_M
        column = (tile % column_tiles) * BLOCK_N
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in range(tl.cdiv(K, BLOCK_K)):
            grad = grad_desc.load([row, k * BLOCK_K])
            w = w_desc.load([k * BLOCK_K, column])
            acc = tl.dot(grad, w, acc)
        left, right = _halves(acc, BLOCK_M, BLOCK_N)
        _store_grad_pre(saved_desc, out_desc, left, row, column, SLOPE)
        _store_grad_pre(saved_desc, out_desc, right, row, column + BLOCK_N // 2, SLOPE)


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
            _descriptor(out, m, n // 2),
            num_rows,
            hidden,
            dim,
            SLOPE=negative_slope,
            **tile,
        )
    return out
