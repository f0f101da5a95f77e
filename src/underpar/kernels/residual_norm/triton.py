"""Residual sum, mixture and RMS norm in one pass, for NVIDIA GPUs. Imported lazily: needs the triton package.

Exploits: a row stays in registers from its streams to its norm, and on the way back from the gradient of the norm to the
gradients of all streams; the sum is formed again there, since the weights' gradients need the streams anyway. Those
gradients are kept per program over many rows, go through one row of partial sums per program, and are the same bits every
time. Fewest bytes a token at D = 512 in bf16 (1,024 a row): residual and norm read 2 rows and write 2, back read 4 and write
2; with a mixture read 3 and write 2, back read 5 and write 3. A compiler that sees the plain formula reads the gradient and
the streams once more for every weight's gradient.
Loses: on few rows, where the last sum over programs is as long as the kernel.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_STREAMS = 4
FORWARD_TILE = {"ROWS": 4, "num_warps": 4, "STAGES": 1, "per_sm": 4096}
"""`per_sm` programs a multiprocessor share the rows; so many that each has one tile."""
BACKWARD_TILE = {"ROWS": 1, "num_warps": 1, "STAGES": 1, "per_sm": 12}
"""A warp to a row needs no barriers; 12 fill the registers of a multiprocessor when there is a mixture."""


@triton.jit
def _weighted(x, weight_ptr, offset, mask):
    """Weights are read anew for every row, from the L1 cache: in registers they would crowd out rows. `offset` repeats the
    columns for every row, so that a thread gets the weights of its own elements and nothing has to move."""
    if weight_ptr is not None:
        x = x * tl.load(weight_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    return x


@triton.jit
def _loaded(ptr, offset, mask):
    return tl.load(ptr + offset, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _stored(ptr, offset, x, mask):
    tl.store(ptr + offset, x.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def _residual_norm_forward(
    x_ptr, y_ptr, z_ptr, u_ptr, x_weight, y_weight, z_weight, u_weight, x0_ptr, mix_ptr,
    total_ptr, mixed_ptr, normed_ptr, num_rows, gain, eps,
    DIM: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    dims = tl.arange(0, BLOCK)
    in_row = dims < DIM
    for tile in tl.range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0), num_stages=STAGES):
        row = tile * ROWS + tl.arange(0, ROWS)
        column = tl.broadcast_to(dims[None, :], (ROWS, BLOCK))
        offset = row.to(tl.int64)[:, None] * DIM + column
        mask = (row < num_rows)[:, None] & in_row[None, :]
        mixed = _weighted(_loaded(x_ptr, offset, mask), x_weight, column, mask)
        if y_ptr is not None:
            mixed += _weighted(_loaded(y_ptr, offset, mask), y_weight, column, mask)
        if z_ptr is not None:
            mixed += _weighted(_loaded(z_ptr, offset, mask), z_weight, column, mask)
        if u_ptr is not None:
            mixed += _weighted(_loaded(u_ptr, offset, mask), u_weight, column, mask)
        if total_ptr is not None:
            _stored(total_ptr, offset, mixed, mask)
        if x0_ptr is not None:
            x0 = _weighted(_loaded(x0_ptr, offset, mask), mix_ptr + DIM, column, mask)
            mixed = _weighted(mixed, mix_ptr, column, mask) + x0
        _stored(mixed_ptr, offset, mixed, mask)
        scale = gain * tl.rsqrt(tl.sum(mixed * mixed, 1) / DIM + eps)
        _stored(normed_ptr, offset, mixed * scale[:, None], mask)


@triton.jit
def _store_partial(partial_ptr, index, acc, dims, in_row, DIM: tl.constexpr, PARAMETERS: tl.constexpr):
    row = tl.program_id(0) * PARAMETERS + index
    tl.store(partial_ptr + row * DIM + dims, tl.sum(acc, 0), mask=in_row)


@triton.jit
def _residual_norm_backward(
    grad_total_ptr, grad_mixed_ptr, grad_normed_ptr,
    x_ptr, y_ptr, z_ptr, u_ptr, x_weight, y_weight, z_weight, u_weight, x0_ptr, mix_ptr,
    grad_x_ptr, grad_y_ptr, grad_z_ptr, grad_u_ptr, grad_x0_ptr, partial_ptr, num_rows, gain, eps,
    DIM: tl.constexpr, BLOCK: tl.constexpr, UNIT: tl.constexpr, PARAMETERS: tl.constexpr,
    ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    dims = tl.arange(0, BLOCK)
    in_row = dims < DIM
    x_sum = tl.zeros((ROWS, BLOCK), tl.float32)
    y_sum = tl.zeros((ROWS, BLOCK), tl.float32)
    z_sum = tl.zeros((ROWS, BLOCK), tl.float32)
    u_sum = tl.zeros((ROWS, BLOCK), tl.float32)
    total_sum = tl.zeros((ROWS, BLOCK), tl.float32)
    x0_sum = tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in tl.range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0), num_stages=STAGES):
        row = tile * ROWS + tl.arange(0, ROWS)
        column = tl.broadcast_to(dims[None, :], (ROWS, BLOCK))
        offset = row.to(tl.int64)[:, None] * DIM + column
        mask = (row < num_rows)[:, None] & in_row[None, :]
        # Every load comes before the first store: the compiler cannot move one across the other.
        x = _loaded(x_ptr, offset, mask)
        if y_ptr is not None:
            y = _loaded(y_ptr, offset, mask)
        if z_ptr is not None:
            z = _loaded(z_ptr, offset, mask)
        if u_ptr is not None:
            u = _loaded(u_ptr, offset, mask)
        if x0_ptr is not None:
            x0 = _loaded(x0_ptr, offset, mask)
        grad_normed = gain * _loaded(grad_normed_ptr, offset, mask)
        if grad_mixed_ptr is not None:
            grad_mixed = _loaded(grad_mixed_ptr, offset, mask)
        if grad_total_ptr is not None:
            grad_total = _loaded(grad_total_ptr, offset, mask)

        total = _weighted(x, x_weight, column, mask)
        if y_ptr is not None:
            total += _weighted(y, y_weight, column, mask)
        if z_ptr is not None:
            total += _weighted(z, z_weight, column, mask)
        if u_ptr is not None:
            total += _weighted(u, u_weight, column, mask)
        mixed = total
        if x0_ptr is not None:
            mixed = _weighted(total, mix_ptr, column, mask) + _weighted(x0, mix_ptr + DIM, column, mask)

        inverse_rms = tl.rsqrt(tl.sum(mixed * mixed, 1) / DIM + eps)
        inner = tl.sum(grad_normed * mixed, 1) / DIM * inverse_rms * inverse_rms
        grad = inverse_rms[:, None] * (grad_normed - inner[:, None] * mixed)
        if grad_mixed_ptr is not None:
            grad += grad_mixed
        if x0_ptr is not None:
            total_sum += grad * total
            x0_sum += grad * x0
            _stored(grad_x0_ptr, offset, _weighted(grad, mix_ptr + DIM, column, mask), mask)
            grad = _weighted(grad, mix_ptr, column, mask)
        if grad_total_ptr is not None:
            grad += grad_total
        _stored(grad_x_ptr, offset, _weighted(grad, x_weight, column, mask), mask)
        if x_weight is not None:
            x_sum += grad * x
        if y_ptr is not None:
            _stored(grad_y_ptr, offset, _weighted(grad, y_weight, column, mask), mask)
            if y_weight is not None:
                y_sum += grad * y
        if z_ptr is not None:
            _stored(grad_z_ptr, offset, _weighted(grad, z_weight, column, mask), mask)
            if z_weight is not None:
                z_sum += grad * z
        if u_ptr is not None:
            _stored(grad_u_ptr, offset, _weighted(grad, u_weight, column, mask), mask)
            if u_weight is not None:
                u_sum += grad * u

    if x_weight is not None:
        _store_partial(partial_ptr, 0 - UNIT, x_sum, dims, in_row, DIM, PARAMETERS)
    if y_weight is not None:
        _store_partial(partial_ptr, 1 - UNIT, y_sum, dims, in_row, DIM, PARAMETERS)
    if z_weight is not None:
        _store_partial(partial_ptr, 2 - UNIT, z_sum, dims, in_row, DIM, PARAMETERS)
    if u_weight is not None:
        _store_partial(partial_ptr, 3 - UNIT, u_sum, dims, in_row, DIM, PARAMETERS)
    if x0_ptr is not None:
        _store_partial(partial_ptr, PARAMETERS - 2, total_sum, dims, in_row, DIM, PARAMETERS)
        _store_partial(partial_ptr, PARAMETERS - 1, x0_sum, dims, in_row, DIM, PARAMETERS)


def _programs(x: Tensor, num_rows: int, tile: dict[str, int]) -> int:
    """`per_sm` programs a multiprocessor, or one a tile when those are fewer. The interpreter gets two, to cross their loop."""
    resident = torch.cuda.get_device_properties(x.device).multi_processor_count * tile["per_sm"] if x.is_cuda else 2
    return min(resident, triton.cdiv(num_rows, tile["ROWS"]))


def _padded(tensors: list[Tensor], unit: int = 0) -> list[Tensor | None]:
    """Four places: None for the `unit` first and for the rest."""
    places = [None] * unit + [x.contiguous() for x in tensors]
    return places + [None] * (MAX_STREAMS - len(places))


def _constants(dim: int, tile: dict[str, int]) -> dict[str, int]:
    chosen = {name: value for name, value in tile.items() if name != "per_sm"}
    return {"DIM": dim, "BLOCK": triton.next_power_of_2(dim), **chosen}


def launch_forward(
    streams: list[Tensor],
    weights: list[Tensor],
    x0: Tensor | None,
    mix: Tensor | None,
    gain: float,
    eps: float,
    keep_total: bool,
    tile: dict[str, int] = FORWARD_TILE,
) -> tuple[Tensor, Tensor, Tensor]:
    """total (empty unless kept), mixed and normed. The `weights` are those of the last streams; streams are (N, D)."""
    num_rows, dim = streams[0].shape
    mixed, normed = (torch.empty((num_rows, dim), dtype=streams[0].dtype, device=streams[0].device) for _ in range(2))
    total = torch.empty_like(mixed) if keep_total else mixed.new_empty(0)
    if mixed.numel():
        _residual_norm_forward[(_programs(mixed, num_rows, tile),)](
            *_padded(streams),
            *_padded(weights, len(streams) - len(weights)),
            x0 if x0 is None else x0.contiguous(),
            mix if mix is None else mix.contiguous(),
            total if keep_total else None,
            mixed,
            normed,
            num_rows,
            gain,
            eps,
            **_constants(dim, tile),
        )
    return total, mixed, normed


def launch_backward(
    grads: tuple[Tensor | None, Tensor | None, Tensor],
    streams: list[Tensor],
    weights: list[Tensor],
    x0: Tensor | None,
    mix: Tensor | None,
    gain: float,
    eps: float,
    tile: dict[str, int] = BACKWARD_TILE,
) -> list[Tensor]:
    """Gradients of the streams, then of x0 if there is one, then of weights and mix, (number, D) fp32.

    `grads` are those of total, mixed and normed; None where a result was not used.
    """
    num_rows, dim = streams[0].shape
    rows = len(streams) + (x0 is not None)
    out = [torch.empty((num_rows, dim), dtype=streams[0].dtype, device=streams[0].device) for _ in range(rows)]
    parameters = len(weights) + (0 if mix is None else 2)
    programs = _programs(streams[0], num_rows, tile)
    partial = torch.empty((programs, parameters, dim), dtype=torch.float32, device=streams[0].device)
    if num_rows * dim:
        unit = len(streams) - len(weights)
        _residual_norm_backward[(programs,)](
            *(g if g is None else g.contiguous() for g in grads),
            *_padded(streams),
            *_padded(weights, unit),
            x0 if x0 is None else x0.contiguous(),
            mix if mix is None else mix.contiguous(),
            *_padded(out[: len(streams)]),
            None if x0 is None else out[-1],
            partial,
            num_rows,
            gain,
            eps,
            UNIT=unit,
            PARAMETERS=parameters,
            **_constants(dim, tile),
        )
    return [*out, partial.sum(0)]
