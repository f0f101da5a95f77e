"""A matrix to fp8, and a matrix of bytes turned round. For NVIDIA GPUs; imported lazily: needs triton.

Turning goes by words of four bytes: as a transpose of bytes it is several times slower, and triton 3.6 gets some bytes wrong.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from underpar.kernels.softcapped_ce.triton import unit_columns

QUANTISE_TILE = {"BLOCK": 1024, "num_warps": 4}
TURN_TILE = {"ROWS": 32, "COLUMNS": 32, "num_warps": 4}
"""In words, four bytes wide or high: 128 bytes in a stretch on both sides."""
WORD = 4


@triton.jit
def _fp8_quantise(values_ptr, codes_ptr, num_columns, row_stride, per_unit, LARGEST: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < num_columns
    values = tl.load(values_ptr + row * row_stride + columns, mask=mask, other=0.0).to(tl.float32) * per_unit
    # the cast alone makes some of what is too large NaN; what is NaN stays it, or a run that is lost would go on
    cut = tl.maximum(values, -LARGEST, propagate_nan=tl.PropagateNan.ALL)
    cut = tl.minimum(cut, LARGEST, propagate_nan=tl.PropagateNan.ALL)
    tl.store(codes_ptr + row * num_columns + columns, cut.to(codes_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _pair(a, b):
    """Bytes 0 and 2, and bytes 1 and 3, of two words side by side: (a0 b0 a2 b2), (a1 b1 a3 b3)."""
    return (a & 0x00FF00FF) | ((b & 0x00FF00FF) << 8), ((a >> 8) & 0x00FF00FF) | (b & 0xFF00FF00)


@triton.jit
def _join(a, b):
    """The lower and the upper halves of two words side by side."""
    return (a & 0x0000FFFF) | (b << 16), (a >> 16) | (b & 0xFFFF0000)


@triton.jit
def _turn_bytes(
    words_ptr, turned_ptr, tall, wide, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # a program turns squares of four bytes by four: word `column` of four rows becomes word `row` of four others
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)[None, :]
    mask = (row < tall) & (column < wide)
    source = words_ptr + 4 * row * wide + column
    a = tl.load(source, mask=mask, other=0).to(tl.uint32, bitcast=True)
    b = tl.load(source + wide, mask=mask, other=0).to(tl.uint32, bitcast=True)
    c = tl.load(source + 2 * wide, mask=mask, other=0).to(tl.uint32, bitcast=True)
    d = tl.load(source + 3 * wide, mask=mask, other=0).to(tl.uint32, bitcast=True)
    ab_even, ab_odd = _pair(a, b)
    cd_even, cd_odd = _pair(c, d)
    first, third = _join(ab_even, cd_even)
    second, fourth = _join(ab_odd, cd_odd)
    target = turned_ptr + 4 * column * tall + row
    tl.store(target, first.to(tl.int32, bitcast=True), mask=mask)
    tl.store(target + tall, second.to(tl.int32, bitcast=True), mask=mask)
    tl.store(target + 2 * tall, third.to(tl.int32, bitcast=True), mask=mask)
    tl.store(target + 3 * tall, fourth.to(tl.int32, bitcast=True), mask=mask)


def launch_quantise(values: Tensor, unit: float, dtype: torch.dtype, largest: float) -> Tensor:
    """values / unit in `dtype`, cut at +-largest: (M, N) contiguous. values: (M, N)."""
    values = unit_columns(values)
    num_rows, num_columns = values.shape
    codes = torch.empty((num_rows, num_columns), dtype=dtype, device=values.device)
    _fp8_quantise[(num_rows, triton.cdiv(num_columns, QUANTISE_TILE["BLOCK"]))](
        values, codes, num_columns, values.stride(0), 1.0 / unit, LARGEST=largest, **QUANTISE_TILE
    )
    return codes


def launch_turn(matrix: Tensor, tile: dict[str, int] | None = None) -> Tensor:
    """The transpose (N, M), contiguous, of a contiguous (M, N) of one-byte numbers; M and N are multiples of 4."""
    num_rows, num_columns = matrix.shape
    turned = torch.empty((num_columns, num_rows), dtype=matrix.dtype, device=matrix.device)
    tall, wide, tile = num_rows // WORD, num_columns // WORD, tile or TURN_TILE
    _turn_bytes[(triton.cdiv(tall, tile["ROWS"]), triton.cdiv(wide, tile["COLUMNS"]))](
        matrix.view(torch.int32), turned.view(torch.int32), tall, wide, **tile
    )
    return turned
