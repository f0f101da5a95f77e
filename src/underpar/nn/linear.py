"""Linear layers without bias, fp32 weights cast to the dtype of the activations at use."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.core.roles import Role
from underpar.nn.module import Module


class Linear(Module):
    """x (..., in_features) -> (..., out_features). Weight (out_features, in_features), float32.

    Initial weights are uniform in +-1/sqrt(in_features), or zero, which makes a residual branch start as nothing.
    """

    weight: Tensor

    def __init__(
        self, in_features: int, out_features: int, *, zero_init: bool = False, role: Role = Role.MATRIX
    ) -> None:
        super().__init__()
        weight = torch.zeros(out_features, in_features)
        if not zero_init:
            bound = 1.0 / math.sqrt(in_features)
            weight.uniform_(-bound, bound)
        self.declare("weight", weight, role)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


def project_together(x: Tensor, layers: tuple[torch.nn.Module, ...]) -> tuple[Tensor, ...]:
    """Apply several layers to one input. Plain `Linear`s share one matrix product, which reads `x` once.

    The weights stay separate parameters (the optimiser orthogonalises each alone); a layer that has been wrapped, by an
    adapter say, is simply called.
    """
    plain = [layer for layer in layers if type(layer) is Linear]
    if len(plain) < len(layers):
        return tuple(layer(x) for layer in layers)
    out = F.linear(x, torch.cat([layer.weight.to(x.dtype) for layer in plain]))
    return out.split([layer.weight.shape[0] for layer in plain], dim=-1)
