"""Loss of every row and the gradient of its logits in one pass over them, for NVIDIA GPUs. Imported lazily: needs triton.

Exploits: a row of up to 8192 logits stays in registers between its sum and its gradient, so that loss and gradient together
take one reading, one writing and three special-function operations a logit, where the two kernels of softcapped_ce take two
readings and six. The gradient overwrites the logits. With a cap the numbers are bounded, and the bound serves as the maximum.
Loses: a larger vocabulary goes through those two kernels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from underpar.kernels.softcapped_ce.triton import (
    MAX_BLOCK,
    cap_share,
    exponential,
    launch_backward,
    launch_forward,
    tile_for,
)

BOUNDED_SOFTCAP = 40.0
"""Up to this cap e^(-2 softcap) is a normal fp32 number, and no maximum is needed."""


@triton.jit
def _loss_and_gradient_kernel(
    logits_ptr, targets_ptr, losses_ptr, num_rows,
    VOCAB: tl.constexpr, SOFTCAP: tl.constexpr, BOUNDED: tl.constexpr, FAST: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    row_exists = rows < num_rows
    in_vocab = (columns < VOCAB)[None, :]
    mask = row_exists[:, None] & in_vocab
    row_ptr = logits_ptr + rows.to(tl.int64) * VOCAB
    ptr = row_ptr[:, None] + columns[None, :]
    target = tl.load(targets_ptr + rows, mask=row_exists, other=0)
    target_in_vocab = (target >= 0) & (target < VOCAB)
    target_logit = tl.load(row_ptr + target, mask=row_exists & target_in_vocab, other=0.0).to(tl.float32)
    logit = tl.load(ptr, mask=mask, other=0.0).to(tl.float32)
    tl.debug_barrier()  # a warp that is ahead must not overwrite the logit of a target that another has yet to read

    share = cap_share(logit, SOFTCAP, FAST)
    z = tl.where(in_vocab, share * (2 * SOFTCAP), float("-inf"))
    if BOUNDED:
        maximum = tl.full((ROWS,), 2 * SOFTCAP, tl.float32)
    else:
        maximum = tl.max(z, 1)
    numerator = exponential(z - maximum[:, None])
    total = tl.sum(numerator, 1)
    target_z = cap_share(target_logit, SOFTCAP, FAST) * (2 * SOFTCAP)
    loss = tl.where(target_in_vocab, (maximum - target_z) + tl.log(total), float("nan"))
    tl.store(losses_ptr + rows, loss, mask=row_exists)

    is_target = columns[None, :] == target.to(tl.int32)[:, None]
    probability = numerator * (4 / total)[:, None]
    grad = tl.where(is_target, probability - 4, probability) * (share * (1 - share))
    tl.store(ptr, grad.to(logits_ptr.dtype.element_ty), mask=mask)


def tile_of_one_pass(vocab_size: int) -> dict[str, int]:
    """As softcapped_ce's, with twice the warps: a thread keeps two numbers for every logit."""
    tile = tile_for(vocab_size)
    return tile | {"num_warps": 2 * tile["num_warps"]}


def replace_by_gradient(
    logits: Tensor, targets: Tensor, losses: Tensor, softcap: float, tile: dict[str, int] | None = None
) -> None:
    """Fill `losses` (N,) fp32; contiguous `logits` (N, V) become their gradients, each by its own row."""
    num_rows, vocab_size = logits.shape
    if vocab_size > MAX_BLOCK:
        found, lse = launch_forward(logits, targets, softcap)
        losses.copy_(found)
        launch_backward(torch.ones_like(lse), logits, targets, lse, softcap, out=logits)
        return
    tile = tile or tile_of_one_pass(vocab_size)
    if num_rows:
        _loss_and_gradient_kernel[(triton.cdiv(num_rows, tile["ROWS"]),)](
            logits,
            targets.contiguous(),
            losses,
            num_rows,
            VOCAB=vocab_size,
            SOFTCAP=softcap,
            BOUNDED=softcap <= BOUNDED_SOFTCAP,
            FAST=logits.is_cuda,
            **tile,
        )
