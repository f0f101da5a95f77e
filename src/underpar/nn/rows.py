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
    """Rows that a gradient may differ from zero in, and the version of its values that this is true of."""

    rows: list[Tensor]
    version: int


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
        ctx.table = table
        ctx.save_for_backward(rows)
        return F.embedding(rows, table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        (rows,) = ctx.saved_tensors
        add_rows_(ctx.table, rows.flatten(), grads[0].flatten(0, -2))
        return None, None


@torch.no_grad()
def add_rows_(table: Tensor, rows: Tensor, values: Tensor) -> None:
    """Add values (N, D) to the `.grad` of a table (R, D) in the rows (N,), which may repeat.

    Sums of one row are made as autograd makes them and rounded to the table's dtype once. Every size is known beforehand: the
    host does not wait for the device. Cost: a few passes over the values, none over the table but the first, which makes zeros.
    """
    noted: list[Tensor] = []
    if table.grad is None:
        table.grad = torch.zeros_like(table)
    else:
        noted = _noted(table.grad) or [_found(table.grad)]
    count = len(rows)
    place = torch.arange(count, device=rows.device)
    first = rows.new_full((len(table),), count).scatter_reduce_(0, rows, place, "amin")[rows]  # of the equal ones
    sums = torch.ops.aten.embedding_dense_backward(values.to(table.dtype), first, count, -1, False)
    table.grad.index_copy_(0, rows, table.grad[rows] + sums[first])  # rows that repeat are written alike
    table.grad.touched_rows = _Notes([*noted, rows], table.grad._version)  # type: ignore[attr-defined]


def is_noted(grad: Tensor) -> bool:
    """Whether `touched` knows the rows of this gradient without looking for them."""
    return _noted(grad) is not None


def touched(grad: Tensor) -> Tensor:
    """(n,) int64, ascending: rows of a gradient (R, D) that may differ from zero. The host waits for the device.

    What changed the gradient in another way is seen by its version, and its rows are looked for.
    """
    noted = _noted(grad)
    return _found(grad) if noted is None else torch.cat(noted).unique()


def _noted(grad: Tensor) -> list[Tensor] | None:
    notes: _Notes | None = getattr(grad, "touched_rows", None)
    return notes.rows if notes is not None and notes.version == grad._version else None


def _found(grad: Tensor) -> Tensor:
    return grad.any(dim=1).nonzero()[:, 0]
