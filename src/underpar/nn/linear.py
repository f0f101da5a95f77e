"""Linear layers without bias, fp32 weights cast to the dtype of the activations at use."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from underpar.core.roles import Role
from underpar.nn.frame import NO_VISIT, Operand, Visit, cast
from underpar.nn.module import Module


class Linear(Module):
    """x (..., in_features) -> (..., out_features). Weight (out_features, in_features), float32; bias (out_features,), if any.

    Initial weights are uniform in +-1/sqrt(in_features), or zero, which makes a residual branch start as nothing.
    """

    weight: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        zero_init: bool = False,
        role: Role = Role.MATRIX,
        label: str = "",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.zero_init = zero_init
        self.bias: Tensor | None
        weight = torch.zeros(out_features, in_features)
        if not zero_init:
            bound = 1.0 / math.sqrt(in_features)
            weight.uniform_(-bound, bound)
        self.declare("weight", weight, role, label)
        if bias:
            self.declare("bias", torch.zeros(out_features), Role.GAIN)
        else:
            self.register_parameter("bias", None)

    def forward(self, x: Tensor, operand: Operand = cast) -> Tensor:
        return F.linear(x, operand(self.weight, x), None if self.bias is None else self.bias.to(x.dtype))


def project_together(
    x: Tensor, layers: dict[str, Linear], operand: Operand = cast, visit: Visit = NO_VISIT
) -> tuple[Tensor, ...]:
    """Apply several layers to one input as one matrix product, which reads `x` once; each output is then visited.

    The weights stay separate parameters: the optimiser orthogonalises each alone. layers: by the name of their site.
    """
    weights = [operand(layer.weight, x) for layer in layers.values()]
    biases = [layer.bias.to(x.dtype) for layer in layers.values() if layer.bias is not None]
    outputs = F.linear(x, torch.cat(weights), torch.cat(biases) if biases else None).split(
        [w.shape[0] for w in weights], dim=-1
    )
    return tuple(visit(site, x, y) for site, y in zip(layers, outputs, strict=True))
