"""The iteration as an operator that torch.compile keeps whole. Not differentiable: it serves optimisers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from underpar.kernels.newton_schulz import ref


@torch.library.custom_op("underpar::newton_schulz", mutates_args=())
def newton_schulz(batch: Tensor, coefficients: Sequence[float]) -> Tensor:
    """`coefficients` holds a, b, c of one iteration after the other."""
    from underpar.kernels.newton_schulz.triton import symmetric_product

    x = ref.wide_and_scaled(batch)
    for a, b, c in zip(coefficients[0::3], coefficients[1::3], coefficients[2::3], strict=True):
        gram = symmetric_product(x)
        x = torch.baddbmm(x, symmetric_product(gram, alpha=c, beta=b), x, beta=a)
    return ref.restored(x, batch)


@newton_schulz.register_fake
def _(batch: Tensor, coefficients: Sequence[float]) -> Tensor:
    return batch.new_empty(batch.shape)
