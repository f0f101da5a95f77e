"""Which weights count: those of the last step, or their average over training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from underpar.optim.averaging import Averaging, WeightAverage
from underpar.train.checkpoint import Checkpoint
from underpar.train.training import AVERAGED, RAW


@contextmanager
def averaged_weights(model: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """Inside the block the model has its averaged weights; after it, exactly those that it had."""
    if average is None:
        yield
        return
    raw = {name: p.detach().clone() for name, p in model.named_parameters()}
    set_weights(model, average.averaged())
    try:
        yield
    finally:
        set_weights(model, raw)


@torch.no_grad()
def set_weights(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy into every parameter the tensor of its name."""
    for name, param in model.named_parameters():
        param.copy_(tensors[name])


def final_weights(checkpoint: Checkpoint, averaging: Averaging | None) -> tuple[dict[str, Tensor], str]:
    """What a checkpoint is packed and scored with, by name on the CPU, and which that is: "averaged" or "raw"."""
    if averaging is None:
        return checkpoint.model, RAW
    average = averaging.build(checkpoint.model)
    average.load_state_tensors(checkpoint.averaging)
    return average.averaged(), AVERAGED
