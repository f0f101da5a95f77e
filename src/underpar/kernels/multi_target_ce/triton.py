"""Cross-entropy of several targets a row in one reading of the logits, for NVIDIA GPUs. Imported lazily: needs triton.

Exploits: capped logits lie between 0 and the cap's scale, so that exp(c - scale) can be summed without a running maximum; all
targets of a row share its log-sum-exp and its dense gradient, and differ in a handful of columns. The gradient is written in
any dtype, fp8 included, divided by a scale that stays on the device. Traffic: forward one reading, backward one reading and
one writing. Source: the fused loss of the speedrun, records 60 and 67; its forward runs blocks of 1,024 columns on two warps.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from underpar.kernels.multi_target_ce.ref import Cap
from underpar.kernels.softcapped_ce.triton import LOG2_E, exponential, unit_columns

FORWARD_TILE = {"BLOCK": 1024, "num_warps": 2}
BACKWARD_TILE = {"ROWS": 1, "BLOCK": 2048, "num_warps": 4}
TURNED_TILE = {"ROWS": 64, "BLOCK": 128, "num_warps": 8}
"""A tile that is written both ways needs rows as well as columns: 64 bytes of fp8 in a stretch of the transpose."""


@triton.jit
def _share(logit, SHIFT: tl.constexpr, DIVISOR: tl.constexpr):
    """sigmoid((logit + SHIFT) / DIVISOR)."""
    return 1.0 / (1.0 + tl.exp2((logit + SHIFT) * (-LOG2_E / DIVISOR)))


@triton.jit
def _forward_kernel(
    logits_ptr,
    targets_ptr,
    weights_ptr,
    losses_ptr,
    lse_ptr,
    row_tokens,
    row_stride,
    VOCAB: tl.constexpr,
    SCALE: tl.constexpr,
    SHIFT: tl.constexpr,
    DIVISOR: tl.constexpr,
    TARGETS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    row_ptr = logits_ptr + row.to(tl.int64) * row_stride
    totals = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, VOCAB, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        in_vocab = columns < VOCAB
        logit = tl.load(row_ptr + columns, mask=in_vocab, other=0.0).to(tl.float32)
        below = SCALE * _share(logit, SHIFT, DIVISOR) - SCALE
        totals += tl.where(in_vocab, exponential(below), 0.0)
    lse = SCALE + tl.log(tl.sum(totals, 0))
    place = row % row_tokens
    loss = 0.0
    for ahead in tl.static_range(TARGETS):
        inside = place + ahead < row_tokens
        target = tl.load(targets_ptr + row + ahead, mask=inside, other=0)
        exists = (target >= 0) & (target < VOCAB)
        logit = tl.load(row_ptr + target, mask=exists, other=0.0).to(tl.float32)
        term = tl.load(weights_ptr + ahead) * (lse - SCALE * _share(logit, SHIFT, DIVISOR))
        term = tl.where(exists, term, float("nan"))  # a target outside must not pass for a loss
        loss += tl.where(inside, term, 0.0)
    tl.store(losses_ptr + row, loss)
    tl.store(lse_ptr + row, lse)


@triton.jit
def _backward_kernel(
    grad_losses_ptr,
    logits_ptr,
    targets_ptr,
    weights_ptr,
    lse_ptr,
    unit_ptr,
    grad_ptr,
    turned_ptr,
    num_rows,
    row_tokens,
    grad_stride,
    row_stride,
    VOCAB: tl.constexpr,
    SCALE: tl.constexpr,
    SHIFT: tl.constexpr,
    DIVISOR: tl.constexpr,
    TARGETS: tl.constexpr,
    TURNED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # neighbours in the grid lie below each other: the short stretches of a transpose meet in the cache
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    in_rows = rows < num_rows
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = in_rows[:, None] & (columns < VOCAB)[None, :]
    wide_rows = rows.to(tl.int64)
    logit = tl.load(logits_ptr + wide_rows[:, None] * row_stride + columns[None, :], mask=mask, other=0.0).to(
        tl.float32
    )
    share = _share(logit, SHIFT, DIVISOR)
    lse = tl.load(lse_ptr + rows, mask=in_rows, other=0.0)
    place = rows % row_tokens
    weight_of_row = tl.zeros((ROWS,), tl.float32)
    hits = tl.zeros((ROWS, BLOCK), tl.float32)
    for ahead in tl.static_range(TARGETS):
        inside = in_rows & (place + ahead < row_tokens)
        target = tl.load(targets_ptr + rows + ahead, mask=inside, other=-1)
        weight = tl.where(inside, tl.load(weights_ptr + ahead), 0.0)
        weight_of_row += weight
        hits += tl.where(columns[None, :] == target[:, None], weight[:, None], 0.0)
    upstream = tl.load(grad_losses_ptr + wide_rows * grad_stride, mask=in_rows, other=0.0) / tl.load(unit_ptr)
    slope = (SCALE / DIVISOR) * (share * (1.0 - share))
    dense = weight_of_row[:, None] * exponential(SCALE * share - lse[:, None])
    grad = (upstream[:, None] * slope * (dense - hits)).to(grad_ptr.dtype.element_ty)
    tl.store(grad_ptr + wide_rows[:, None] * VOCAB + columns[None, :], grad, mask=mask)
    if TURNED:
        wide_columns = columns.to(tl.int64)
        tl.store(turned_ptr + wide_columns[:, None] * num_rows + rows[None, :], tl.trans(grad), mask=tl.trans(mask))


def launch_forward(
    logits: Tensor, targets: Tensor, weights: Tensor, cap: Cap, row_tokens: int, tile: dict[str, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Losses and log-sum-exps, both (N,) fp32. The rows of `logits` may be strided, its columns not."""
    logits = unit_columns(logits)
    num_rows, vocab_size = logits.shape
    losses = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    lse = torch.empty_like(losses)
    if num_rows:
        _forward_kernel[(num_rows,)](
            logits,
            targets.contiguous(),
            weights.float().contiguous(),
            losses,
            lse,
            row_tokens,
            logits.stride(0),
            VOCAB=vocab_size,
            SCALE=cap.scale,
            SHIFT=cap.shift,
            DIVISOR=cap.divisor,
            TARGETS=weights.shape[0],
            **(tile or FORWARD_TILE),
        )
    return losses, lse


def launch_backward(
    grad_losses: Tensor,
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    lse: Tensor,
    cap: Cap,
    row_tokens: int,
    unit: Tensor,
    dtype: torch.dtype,
    *,
    turned: bool = False,
    tile: dict[str, int] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gradient of the logits divided by `unit`, a one-element fp32 tensor: (N, V) contiguous in `dtype`.

    `grad_losses` (N,) may be an expanded scalar, as the gradient of a sum is. turned: write the transpose too, (V, N)
    contiguous; it is the second result, otherwise None.
    """
    logits = unit_columns(logits)
    num_rows, vocab_size = logits.shape
    grad = torch.empty(logits.shape, dtype=dtype, device=logits.device)
    transpose = torch.empty((vocab_size, num_rows), dtype=dtype, device=logits.device) if turned else None
    tile = tile or (TURNED_TILE if turned else BACKWARD_TILE)
    if num_rows:
        _backward_kernel[(triton.cdiv(num_rows, tile["ROWS"]), triton.cdiv(vocab_size, tile["BLOCK"]))](
            grad_losses,
            logits,
            targets.contiguous(),
            weights.float().contiguous(),
            lse,
            unit,
            grad,
            grad if transpose is None else transpose,
            num_rows,
            row_tokens,
            grad_losses.stride(0),
            logits.stride(0),
            VOCAB=vocab_size,
            SCALE=cap.scale,
            SHIFT=cap.shift,
            DIVISOR=cap.divisor,
            TARGETS=weights.shape[0],
            TURNED=turned,
            **tile,
        )
    return grad, transpose
