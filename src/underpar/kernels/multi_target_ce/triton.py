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
BACKWARD_TILE = {"BLOCK": 2048, "num_warps": 4}


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
    grad_logits_ptr,
    row_tokens,
    grad_stride,
    row_stride,
    VOCAB: tl.constexpr,
    SCALE: tl.constexpr,
    SHIFT: tl.constexpr,
    DIVISOR: tl.constexpr,
    TARGETS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < VOCAB
    wide_row = row.to(tl.int64)
    logit = tl.load(logits_ptr + wide_row * row_stride + columns, mask=mask, other=0.0).to(tl.float32)
    share = _share(logit, SHIFT, DIVISOR)
    lse = tl.load(lse_ptr + row)
    place = row % row_tokens
    weight_of_row = 0.0
    hits = tl.zeros((BLOCK,), tl.float32)
    for ahead in tl.static_range(TARGETS):
        inside = place + ahead < row_tokens
        target = tl.load(targets_ptr + row + ahead, mask=inside, other=-1)
        weight = tl.where(inside, tl.load(weights_ptr + ahead), 0.0)
        weight_of_row += weight
        hits += tl.where(columns == target, weight, 0.0)
    upstream = tl.load(grad_losses_ptr + wide_row * grad_stride) / tl.load(unit_ptr)
    slope = (SCALE / DIVISOR) * (share * (1.0 - share))
    grad = upstream * slope * (weight_of_row * exponential(SCALE * share - lse) - hits)
    tl.store(grad_logits_ptr + wide_row * VOCAB + columns, grad.to(grad_logits_ptr.dtype.element_ty), mask=mask)


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
    tile: dict[str, int] | None = None,
) -> Tensor:
    """Gradient of the logits divided by `unit`, a one-element fp32 tensor: (N, V) contiguous in `dtype`.

    `grad_losses` (N,) may be an expanded scalar, as the gradient of a sum is.
    """
    logits = unit_columns(logits)
    num_rows, vocab_size = logits.shape
    grad_logits = torch.empty(logits.shape, dtype=dtype, device=logits.device)
    tile = tile or BACKWARD_TILE
    if num_rows:
        _backward_kernel[(num_rows, triton.cdiv(vocab_size, tile["BLOCK"]))](
            grad_losses,
            logits,
            targets.contiguous(),
            weights.float().contiguous(),
            lse,
            unit,
            grad_logits,
            row_tokens,
            grad_losses.stride(0),
            logits.stride(0),
            VOCAB=vocab_size,
            SCALE=cap.scale,
            SHIFT=cap.shift,
            DIVISOR=cap.divisor,
            TARGETS=weights.shape[0],
            **tile,
        )
    return grad_logits
