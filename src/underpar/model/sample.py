"""Documents that a model writes itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from underpar.data.context import Context
from underpar.model.gpt import GPT

STEP = 32
"""Passes are rounded up to a multiple of this many tokens: a document of 256 meets 8 shapes instead of 255."""
_UNIT = float(1 << 40)


@torch.no_grad()
def sample(
    model: GPT,
    draws: Tensor,
    context: Callable[[Tensor], tuple[Tensor, Context]],
    *,
    bos_id: int,
    vocab_size: int,
    temperature: float,
    batch_tokens: int,
) -> Tensor:
    """(N, T) int64 tokens on the CPU: a BOS in each row, and T - 1 tokens drawn one after another from what the model predicts.

    draws: (N, T - 1) float64 in [0, 1) on the CPU, one for each token: they decide it by the inverse of the cumulative
    distribution, summed in whole numbers, so that `batch_tokens`, the tokens of a pass, has no influence beyond rounding.
    context: from (n, t) rows to what the model reads of them. vocab_size: ids from here on are never drawn. A BOS that is
    drawn begins another document, for models whose context says so.

    Cost: a forward pass over all that a row has, for each of its tokens, since the model keeps no keys and values: about
    T / 2 times a pass over the result. Many short rows are cheap, one long row is not.
    """
    count, length = draws.shape[0], draws.shape[1] + 1
    device = model.embedding.weight.device
    rows = torch.full(
        (count, -(-length // STEP) * STEP), (bos_id + 1) % vocab_size
    )  # what is not written yet is not seen
    rows[:, 0] = bos_id
    at_once = max(1, batch_tokens // rows.shape[1])
    for part, wanted in zip(rows.split(at_once), draws.split(at_once), strict=True):
        for done in range(1, length):
            inputs, ctx = context(part[:, : -(-done // STEP) * STEP])
            hidden = model.hidden(inputs.to(device), ctx.to(str(device)))
            last = hidden.reshape(len(part), -1, hidden.shape[-1])[:, done - 1 : done]
            logits = model.head.logits(last)[:, 0, :vocab_size]
            part[:, done] = _drawn(logits / temperature, wanted[:, done - 1]).cpu()
    return rows[:, :length]


def _drawn(logits: Tensor, draws: Tensor) -> Tensor:
    """(n, V) logits, (n,) in [0, 1) -> (n,) ids."""
    heights = (torch.softmax(logits.float(), dim=-1) * _UNIT).long().cumsum(-1)
    places = (heights[:, -1:].double() * draws.to(logits.device)[:, None]).long()
    return torch.searchsorted(heights, places, right=True)[:, 0]
