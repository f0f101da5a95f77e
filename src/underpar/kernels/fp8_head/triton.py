"""A matrix to fp8, by rows and turned round, in one reading. For NVIDIA GPUs; imported lazily: needs triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from underpar.kernels.softcapped_ce.triton import unit_columns

TILE = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4}


@triton.jit
def _quantise_kernel(
    values_ptr,
    codes_ptr,
    turned_ptr,
    num_rows,
    num_columns,
    row_stride,
    per_unit,
    LARGEST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
    mask = (rows < num_rows)[:, None] & (columns < num_columns)[None, :]
    places = values_ptr + rows[:, None] * row_stride + columns[None, :]
    values = tl.load(places, mask=mask, other=0.0).to(tl.float32) * per_unit
    # the cast alone makes some of what is too large NaN; what is NaN stays it, or a run that is lost would go on
    cut = tl.maximum(values, -LARGEST, propagate_nan=tl.PropagateNan.ALL)
    cut = tl.minimum(cut, LARGEST, propagate_nan=tl.PropagateNan.ALL)
    codes = cut.to(codes_ptr.dtype.element_ty)
    tl.store(codes_ptr + rows[:, None] * num_columns + columns[None, :], codes, mask=mask)
    tl.store(turned_ptr + columns[:, None] * num_rows + rows[None, :], tl.trans(codes), mask=tl.trans(mask))


def launch_quantise(values: Tensor, unit: float, dtype: torch.dtype, largest: float) -> tuple[Tensor, Tensor]:
    """values / unit in `dtype`, cut at +-largest: (M, N) and its transpose (N, M), contiguous. values: (M, N)."""
    values = unit_columns(values)  # by columns, triton 3.6 gets the codes by rows wrong
    num_rows, num_columns = values.shape
    codes = torch.empty((num_rows, num_columns), dtype=dtype, device=values.device)
    turned = torch.empty((num_columns, num_rows), dtype=dtype, device=values.device)
    _quantise_kernel[(triton.cdiv(num_rows, TILE["ROWS"]), triton.cdiv(num_columns, TILE["COLUMNS"]))](
        values,
        codes,
        turned,
        num_rows,
        num_columns,
        values.stride(0),
        1.0 / unit,
        LARGEST=largest,
        **TILE,
    )
    return codes, turned
