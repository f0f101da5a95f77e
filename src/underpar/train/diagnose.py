"""What went wrong first, when a loss is not finite."""

import torch
from torch import Tensor, nn

from underpar.core.phase import EVALUATION, Phase
from underpar.data.context import Batch


@torch.no_grad()
def first_bad_tensor(model: nn.Module, batches: list[Batch], phase: Phase = EVALUATION) -> str:
    """Name the first non-finite tensor: a parameter, else the output of the first module that makes one on these batches."""
    for name, param in model.named_parameters():
        if not torch.isfinite(param).all():
            return f"parameter {name} ({_describe(param)})"
    found: list[str] = []
    handles = [
        module.register_forward_hook(lambda _m, _i, out, name=name: _note(found, name, out))
        for name, module in model.named_modules()
        if name
    ]
    try:
        for batch in batches:
            losses = model(batch.inputs, batch.targets, batch.context, phase)
            if found:
                return f"output of {found[0]}"
            if not torch.isfinite(losses).all():
                return f"the loss ({_describe(losses)})"
    finally:
        for handle in handles:
            handle.remove()
    return "in no parameter and no activation of this process: a gradient, or a tensor of another process"


def _note(found: list[str], name: str, out: object) -> None:
    if isinstance(out, Tensor) and out.is_floating_point() and not torch.isfinite(out).all():
        found.append(f"{name} ({_describe(out)})")


def _describe(tensor: Tensor) -> str:
    return f"{int((~torch.isfinite(tensor)).sum())} of {tensor.numel():,} values are NaN or infinite"
