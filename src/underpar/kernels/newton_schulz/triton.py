"""Symmetric products X X^T and c A A + b A, for NVIDIA GPUs. Imported lazily: needs the triton package.

Exploits: the result is symmetric, so that only tiles on and above the diagonal are computed and each is stored twice, the
second time transposed; the polynomial's linear term is added in the epilogue. Of the products of one iteration on (r, c)
matrices, 2 r^2 c + 2 r^3 of 4 r^2 c + 2 r^3 operations, about half are spared. The third product has no such symmetry and
stays with the library.
Loses: below a few tiles a side, where the diagonal is most of the matrix, and wherever launches, not products, take the
time.
Source: the symmetric kernels of modded-nanogpt and of flash-muon.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

SMALL_TILE = {"BLOCK": 64, "BLOCK_K": 64, "num_warps": 4, "num_stages": 4}
LARGE_TILE = {"BLOCK": 128, "BLOCK_K": 64, "num_warps": 8, "num_stages": 3}
LARGE_ROWS = 1024
"""Rows from which 128-wide tiles leave enough of them to fill the GPU."""


@triton.jit
def _symmetric_kernel(
    x_ptr, out_ptr, rows, columns, alpha, beta,
    ADD: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(rows, BLOCK)
    above = tl.program_id(0) // tiles
    left = tl.program_id(0) % tiles
    if left < above:
        return
    matrix = tl.program_id(1).to(tl.int64)
    x_ptr += matrix * rows * columns
    out_ptr += matrix * rows * rows
    i = above * BLOCK + tl.arange(0, BLOCK)
    j = left * BLOCK + tl.arange(0, BLOCK)
    step = tl.arange(0, BLOCK_K)
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, columns, BLOCK_K):
        k = start + step
        x_i = tl.load(
            x_ptr + i[:, None] * columns + k[None, :], mask=(i < rows)[:, None] & (k < columns)[None, :], other=0.0
        )
        x_j = tl.load(
            x_ptr + j[:, None] * columns + k[None, :], mask=(j < rows)[:, None] & (k < columns)[None, :], other=0.0
        )
        acc = tl.dot(x_i, x_j.T, acc)
    mask = (i < rows)[:, None] & (j < rows)[None, :]
    acc *= alpha
    if ADD:
        acc += beta * tl.load(x_ptr + i[:, None] * columns + j[None, :], mask=mask, other=0.0).to(tl.float32)
    out = acc.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + i[:, None] * rows + j[None, :], out, mask=mask)
    if left > above:
        tl.store(out_ptr + j[:, None] * rows + i[None, :], out.T, mask=(j < rows)[:, None] & (i < rows)[None, :])


def symmetric_product(x: Tensor, alpha: float = 1.0, beta: float = 0.0, tile: dict[str, int] | None = None) -> Tensor:
    """alpha X X^T + beta X for every X of a contiguous batch (B, r, c), in its dtype; beta only for symmetric X."""
    batch, rows, columns = x.shape
    out = torch.empty((batch, rows, rows), dtype=x.dtype, device=x.device)
    tile = tile or (LARGE_TILE if rows >= LARGE_ROWS else SMALL_TILE)
    if out.numel():
        tiles = triton.cdiv(rows, tile["BLOCK"])
        with torch.cuda.device_of(x):
            _symmetric_kernel[(tiles * tiles, batch)](x, out, rows, columns, alpha, beta, ADD=beta != 0, **tile)
    return out
