"""Tables of which a step touches few rows: their gradients are added up row by row, and the rows are remembered.

Autograd makes a gradient as large as the table in every backward pass and adds it to `.grad`, whole. A table that keeps rows
gets the same sums, and only in the rows that were looked up; `.grad` stays the dense tensor that everybody knows. Look-ups
have to happen outside of compiled graphs for that: inside they go autograd's way.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class _Notes(NamedTuple):
    """Rows that a gradient may differ from zero in, and the version of its values that this is true of.

    ready: the device's event behind which all of the rows are known; None on a CPU.
    """

    rows: list[Tensor]
    version: int
    ready: Any


def keep_rows(table: Tensor) -> None:
    """From now on `look_up` adds to the gradient of this parameter row by row."""
    table.keeps_rows = True  # type: ignore[attr-defined]


def keeps_rows(table: Tensor) -> bool:
    """Whether `keep_rows` was said of the parameter."""
    return getattr(table, "keeps_rows", False)


def look_up(table: Tensor, rows: Tensor) -> Tensor:
    """table (R, D), rows (...) int64 -> (..., D)."""
    plain = torch.compiler.is_compiling() or not (torch.is_grad_enabled() and table.requires_grad and keeps_rows(table))
    return F.embedding(rows, table) if plain else _LookUp.apply(table, rows)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.table, ctx.ready = table, None
        ctx.save_for_backward(rows)
        if rows.is_cuda:
            ctx.ready = torch.cuda.current_stream(rows.device).record_event()
        return F.embedding(rows, table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        (rows,) = ctx.saved_tensors
        _add_(ctx.table, rows.flatten(), grads[0].flatten(0, -2), ctx.ready)
        return None, None


@torch.no_grad()
def _add_(table: Tensor, rows: Tensor, values: Tensor, ready: Any) -> None:
    """Add values (N, D) to the `.grad` of a table (R, D) in the rows (N,), which may repeat.

    Sums of one row are made as autograd makes them and rounded to the table's dtype once. Every size is known beforehand: the
    host does not wait for the device. Cost: a few passes over the values, none over the table but the first, which makes zeros.
    """
    noted: list[Tensor] = []
    if table.grad is None:
        table.grad = torch.zeros_like(table)
    else:
        notes = _notes(table.grad)
        noted = [_found(table.grad)] if notes is None else notes.rows
    count = len(rows)
    place = torch.arange(count, device=rows.device)
    first = rows.new_full((len(table),), count).scatter_reduce_(0, rows, place, "amin")[rows]  # of the equal ones
    sums = torch.ops.aten.embedding_dense_backward(values.to(table.dtype), first, count, -1, False)
    table.grad.index_copy_(0, rows, table.grad[rows] + sums[first])  # rows that repeat are written alike
    table.grad.touched_rows = _Notes([*noted, rows], table.grad._version, ready)  # type: ignore[attr-defined]


def is_noted(grad: Tensor) -> bool:
    """Whether `touched` knows the rows of this gradient without looking for them."""
    return _notes(grad) is not None


def touched(grad: Tensor, own: int, owners: int) -> tuple[Tensor, list[int]]:
    """Rows of a gradient (R, D) that may differ from zero, (n,) int64 ascending, and how many each of `owners` has, who own
    `own` rows each, in order.

    The host waits for the numbers of rows, not for the backward pass. What changed the gradient in another way is seen by its
    version; its rows are looked for then, behind the backward pass.
    """
    notes = _notes(grad)
    if notes is None:
        return _counted(_found(grad), own, owners)
    if notes.ready is None:
        return _counted(torch.cat(notes.rows).unique(), own, owners)
    main, beside = torch.cuda.current_stream(grad.device), torch.cuda.Stream(grad.device)
    beside.wait_event(notes.ready)
    with torch.cuda.stream(beside):
        rows, counts = _counted(torch.cat(notes.rows).unique(), own, owners)
    rows.record_stream(main)  # made beside it, used there
    return rows, counts


def _counted(rows: Tensor, own: int, owners: int) -> tuple[Tensor, list[int]]:
    bounds = torch.arange(owners + 1, device=rows.device) * own
    return rows, torch.searchsorted(rows, bounds).diff().tolist()


def _notes(grad: Tensor) -> _Notes | None:
    notes: _Notes | None = getattr(grad, "touched_rows", None)
    return notes if notes is not None and notes.version == grad._version else None


def _found(grad: Tensor) -> Tensor:
    return grad.any(dim=1).nonzero()[:, 0]
