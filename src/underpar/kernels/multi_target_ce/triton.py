"""Cross-entropy of several targets a row in one reading of the logits, for NVIDIA GPUs. Imported lazily: needs triton.

Exploits: capped logits lie between 0 and the cap's scale, so that exp(c - scale) can be summed without a running maximum; all
targets of a row share its log-sum-exp and its dense gradient, and differ in a handful of columns, which are written over it
afterwards. The gradient is written in any dtype, fp8 included, divided by a scale that stays on the device. Traffic: forward
one reading, backward one reading and one writing. Source: the fused loss of the speedrun, records 60 and 67; its forward runs
blocks of 1,024 columns on two warps.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from underpar.kernels.multi_target_ce.ref import Cap
from underpar.kernels.softcapped_ce.triton import LOG2_E, exponential, unit_columns

FORWARD_TILE = {"BLOCK": 1024, "num_warps": 2}
BACKWARD_TILE = {"BLOCK": 2048, "num_warps": 4}


@triton.jit
def _share(logit, SHIFT: tl.constexpr, DIVISOR: tl.constexpr, FAST: tl.constexpr):
    """sigmoid((logit + SHIFT) / DIVISOR). FAST needs a GPU."""
    divisor = 1.0 + tl.exp2(logit * (-LOG2_E / DIVISOR) + (-LOG2_E * SHIFT / DIVISOR))
    if FAST:
        share = libdevice.fast_dividef(1.0, divisor)
    else:
        share = 1.0 / divisor
    return share


@triton.jit
def _multi_target_ce_forward(
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
    FAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    row_ptr = logits_ptr + row.to(tl.int64) * row_stride
    totals = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, VOCAB, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        in_vocab = columns < VOCAB
        logit = tl.load(row_ptr + columns, mask=in_vocab, other=0.0).to(tl.float32)
        below = SCALE * _share(logit, SHIFT, DIVISOR, FAST) - SCALE
        totals += tl.where(in_vocab, exponential(below), 0.0)
    lse = SCALE + tl.log(tl.sum(totals, 0))
    place = row % row_tokens
    loss = 0.0
    for ahead in tl.static_range(TARGETS):
        inside = place + ahead < row_tokens
        target = tl.load(targets_ptr + row + ahead, mask=inside, other=0)
        exists = (target >= 0) & (target < VOCAB)
        logit = tl.load(row_ptr + target, mask=exists, other=0.0).to(tl.float32)
        term = tl.load(weights_ptr + ahead) * (lse - SCALE * _share(logit, SHIFT, DIVISOR, FAST))
        term = tl.where(exists, term, float("nan"))  # a target outside must not pass for a loss
        loss += tl.where(inside, term, 0.0)
    tl.store(losses_ptr + row, loss)
    tl.store(lse_ptr + row, lse)


@triton.jit
def _multi_target_ce_backward(
    grad_losses_ptr,
    logits_ptr,
    targets_ptr,
    weights_ptr,
    lse_ptr,
    unit_ptr,
    grad_ptr,
    row_tokens,
    grad_stride,
    row_stride,
    VOCAB: tl.constexpr,
    SCALE: tl.constexpr,
    SHIFT: tl.constexpr,
    DIVISOR: tl.constexpr,
    TARGETS: tl.constexpr,
    FAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, start = tl.program_id(0), tl.program_id(1) * BLOCK
    columns = start + tl.arange(0, BLOCK)
    in_vocab = columns < VOCAB
    logits_ptr += row.to(tl.int64) * row_stride
    grad_ptr += row.to(tl.int64) * VOCAB
    logit = tl.load(logits_ptr + columns, mask=in_vocab, other=0.0).to(tl.float32)
    lse = tl.load(lse_ptr + row)
    upstream = tl.load(grad_losses_ptr + row.to(tl.int64) * grad_stride) / tl.load(unit_ptr) * (SCALE / DIVISOR)
    last = tl.minimum(TARGETS, row_tokens - row % row_tokens)  # a row's end cuts its targets off
    weight_of_row = 0.0
    for ahead in tl.static_range(TARGETS):
        weight_of_row += tl.load(weights_ptr + ahead, mask=ahead < last, other=0.0)
    share = _share(logit, SHIFT, DIVISOR, FAST)
    dense = (upstream * weight_of_row) * (share * (1.0 - share)) * exponential(SCALE * share - lse)
    tl.store(grad_ptr + columns, dense.to(grad_ptr.dtype.element_ty), mask=in_vocab)
    tl.debug_barrier()  # the columns of the targets come after the rest, whichever thread writes them
    for ahead in tl.static_range(TARGETS):
        target = tl.load(targets_ptr + row + ahead, mask=ahead < last, other=-1)
        hits = 0.0
        for other in tl.static_range(TARGETS):  # the same token may be several targets of a row
            is_same = (other < last) & (tl.load(targets_ptr + row + other, mask=other < last, other=-1) == target)
            hits += tl.where(is_same, tl.load(weights_ptr + other), 0.0)
        is_here = (target >= start) & (target < start + BLOCK) & (target < VOCAB)
        share = _share(tl.load(logits_ptr + target, mask=is_here, other=0.0).to(tl.float32), SHIFT, DIVISOR, FAST)
        grad = upstream * (share * (1.0 - share)) * (weight_of_row * exponential(SCALE * share - lse) - hits)
        tl.store(grad_ptr + target, grad.to(grad_ptr.dtype.element_ty), mask=is_here)


def launch_forward(
    logits: Tensor, targets: Tensor, weights: Tensor, cap: Cap, row_tokens: int, tile: dict[str, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Losses and log-sum-exps, both (N,) fp32. The rows of `logits` may be strided, its columns not."""
    logits = unit_columns(logits)
    num_rows, vocab_size = logits.shape
    losses = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    lse = torch.empty_like(losses)
    if num_rows:
        _multi_target_ce_forward[(num_rows,)](
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
            FAST=logits.is_cuda,
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
    grad = torch.empty(logits.shape, dtype=dtype, device=logits.device)
    tile = tile or BACKWARD_TILE
    if num_rows:
        _multi_target_ce_backward[(num_rows, triton.cdiv(vocab_size, tile["BLOCK"]))](
            grad_losses,
            logits,
            targets.contiguous(),
            weights.float().contiguous(),
            lse,
            unit,
            grad,
            row_tokens,
            grad_losses.stride(0),
            logits.stride(0),
            VOCAB=vocab_size,
            SCALE=cap.scale,
            SHIFT=cap.shift,
            DIVISOR=cap.divisor,
            TARGETS=weights.shape[0],
            FAST=logits.is_cuda,
            **tile,
        )
    return grad
