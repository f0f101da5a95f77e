"""Soft-capped cross-entropy in one reading of the logits, for NVIDIA GPUs. Imported lazily: needs the triton package.

Exploits: softcap * tanh(l / softcap) = 2 * softcap * sigmoid(2 l / softcap) - softcap, and the cross-entropy does not
see the constant, so that the kernel works with z = 2 * softcap * sigmoid(2 l / softcap). A vocabulary of up to 8192
stays in registers (several rows to a program when it is small); a larger one streams with a running maximum. Traffic:
forward one reading, backward one reading and one writing of the logits, the least without fusing the head's product.
Loses: the capped forward needs three special-function operations a logit. At 16 a clock and SM that takes, on paper,
about twice as long on a Hopper GPU as reading bf16 logits does; the backward is balanced. Exponentials go through exp2 and
the sigmoid through the fast reciprocal: the plain forms add instructions for denormal numbers that cannot occur here.
Source: the fused loss of modded-nanogpt and of the later 16 MB records; online softmax: Milakov and Gimelshein 2018.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

MAX_BLOCK = 8192
"""Columns held in registers at once; beyond it a row streams."""
TILE = 4096
"""Logits a program aims to hold: several rows of a small vocabulary."""


LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def exponential(x):
    return tl.exp2(x * LOG2_E)


@triton.jit
def cap_share(logit, SOFTCAP: tl.constexpr, FAST: tl.constexpr):
    """sigmoid(2 logit / SOFTCAP): where in (-SOFTCAP, SOFTCAP) the capped logit lies. FAST needs a GPU."""
    divisor = 1.0 + tl.exp2(logit * (-2 * LOG2_E / SOFTCAP))
    if FAST:
        share = libdevice.fast_dividef(1.0, divisor)
    else:
        share = 1.0 / divisor
    return share


@triton.jit
def shifted_cap(logit, SOFTCAP: tl.constexpr, FAST: tl.constexpr):
    """The capped logit plus SOFTCAP; the logit itself when there is no cap."""
    if SOFTCAP > 0:
        z = (2 * SOFTCAP) * cap_share(logit, SOFTCAP, FAST)
    else:
        z = logit
    return z


@triton.jit
def _softcapped_ce_forward(
    logits_ptr,
    targets_ptr,
    losses_ptr,
    lse_ptr,
    num_rows,
    row_stride,
    VOCAB: tl.constexpr,
    SOFTCAP: tl.constexpr,
    FAST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_exists = rows < num_rows
    row_ptr = logits_ptr + rows.to(tl.int64) * row_stride
    maximum = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, VOCAB, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        in_vocab = (columns < VOCAB)[None, :]
        logit = tl.load(row_ptr[:, None] + columns[None, :], mask=row_exists[:, None] & in_vocab, other=0.0)
        z = tl.where(in_vocab, shifted_cap(logit.to(tl.float32), SOFTCAP, FAST), float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(z, 1))
        total = total * exponential(maximum - new_maximum) + tl.sum(exponential(z - new_maximum[:, None]), 1)
        maximum = new_maximum
    log_total = tl.log(total)

    target = tl.load(targets_ptr + rows, mask=row_exists, other=0)
    target_in_vocab = (target >= 0) & (target < VOCAB)
    target_logit = tl.load(row_ptr + target, mask=row_exists & target_in_vocab, other=0.0)
    # Not lse - z: the maximum is often the target's own, and then the large numbers cancel exactly.
    loss = (maximum - shifted_cap(target_logit.to(tl.float32), SOFTCAP, FAST)) + log_total
    # A target outside the vocabulary must not pass for a loss: NaN stops the run at the loop's check.
    loss = tl.where(target_in_vocab, loss, float("nan"))
    tl.store(losses_ptr + rows, loss, mask=row_exists)
    tl.store(lse_ptr + rows, maximum + log_total, mask=row_exists)


@triton.jit
def _softcapped_ce_backward(
    grad_losses_ptr,
    logits_ptr,
    targets_ptr,
    lse_ptr,
    grad_logits_ptr,
    num_rows,
    grad_stride,
    row_stride,
    VOCAB: tl.constexpr,
    SOFTCAP: tl.constexpr,
    FAST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row_exists = rows < num_rows
    wide_rows = rows.to(tl.int64)
    mask = row_exists[:, None] & (columns < VOCAB)[None, :]
    logit = tl.load(logits_ptr + wide_rows[:, None] * row_stride + columns[None, :], mask=mask, other=0.0)
    logit = logit.to(tl.float32)
    grad_loss = tl.load(grad_losses_ptr + wide_rows * grad_stride, mask=row_exists, other=0.0)
    lse = tl.load(lse_ptr + rows, mask=row_exists, other=0.0)
    target = tl.load(targets_ptr + rows, mask=row_exists, other=0)

    is_target = columns[None, :] == target.to(tl.int32)[:, None]
    if SOFTCAP > 0:
        share = cap_share(logit, SOFTCAP, FAST)
        probability = exponential(share * (2 * SOFTCAP) - lse[:, None])
        grad_logit = (4 * grad_loss)[:, None] * (share * (1 - share))
    else:
        probability = exponential(logit - lse[:, None])
        grad_logit = grad_loss[:, None]
    grad_logit = grad_logit * tl.where(is_target, probability - 1, probability)
    grad_ptr = grad_logits_ptr + wide_rows[:, None] * VOCAB + columns[None, :]
    tl.store(grad_ptr, grad_logit.to(grad_logits_ptr.dtype.element_ty), mask=mask)


def tile_for(vocab_size: int) -> dict[str, int]:
    """Rows and columns of a program's tile, and its warps: 16 to 32 logits a thread keep fp32 rows in registers."""
    block = min(triton.next_power_of_2(vocab_size), MAX_BLOCK)
    rows = max(1, TILE // block)
    return {"ROWS": rows, "BLOCK": block, "num_warps": 8 if rows * block > TILE else 4}


def launch_forward(
    logits: Tensor, targets: Tensor, softcap: float, tile: dict[str, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Losses and shifted log-sum-exps, both (N,) fp32. The rows of `logits` may be strided, its columns not."""
    logits, targets = unit_columns(logits), targets.contiguous()
    num_rows, vocab_size = logits.shape
    losses = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    lse = torch.empty_like(losses)
    tile = tile or tile_for(vocab_size)
    if num_rows:
        _softcapped_ce_forward[(triton.cdiv(num_rows, tile["ROWS"]),)](
            logits,
            targets,
            losses,
            lse,
            num_rows,
            logits.stride(0),
            VOCAB=vocab_size,
            SOFTCAP=softcap,
            FAST=logits.is_cuda,
            **tile,
        )
    return losses, lse


def launch_backward(
    grad_losses: Tensor,
    logits: Tensor,
    targets: Tensor,
    lse: Tensor,
    softcap: float,
    out: Tensor | None = None,
    tile: dict[str, int] | None = None,
) -> Tensor:
    """Gradient of the logits, contiguous. `grad_losses` (N,) may be an expanded scalar, as the mean's gradient is.

    `out`: contiguous; it may be the logits themselves, since a program reads what it writes and nothing else.
    """
    logits, targets = unit_columns(logits), targets.contiguous()
    num_rows, vocab_size = logits.shape
    grad_logits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device) if out is None else out
    tile = tile or tile_for(vocab_size)
    if num_rows:
        grid = (triton.cdiv(num_rows, tile["ROWS"]), triton.cdiv(vocab_size, tile["BLOCK"]))
        _softcapped_ce_backward[grid](
            grad_losses,
            logits,
            targets,
            lse,
            grad_logits,
            num_rows,
            grad_losses.stride(0),
            logits.stride(0),
            VOCAB=vocab_size,
            SOFTCAP=softcap,
            FAST=logits.is_cuda,
            **tile,
        )
    return grad_logits


def unit_columns(logits: Tensor) -> Tensor:
    return logits if logits.stride(1) == 1 else logits.contiguous()
