"""Learned scalars on whole weights: cheaper than scaling activations, and the same in exact arithmetic."""

import torch
from torch import Tensor

from underpar.core.config import Config, config
from underpar.core.roles import Role
from underpar.nn.frame import Operand
from underpar.nn.module import Module


class WeightGains(Config):
    """Scalars on the projections of attention."""

    def build(self) -> "AttentionGains":
        return AttentionGains()


@config
class NoWeightGains(WeightGains):
    """None."""


@config
class ScalarWeightGains(WeightGains):
    """One on q, k and v together, one on the output projection. Source: modded-nanogpt, record 47."""

    inputs: float = 0.5
    output: float = 1.0

    def build(self) -> "AttentionGains":
        return _ScalarGains(self.inputs, self.output)


class AttentionGains(Module):
    """Wraps the operand of a projection's product; this one leaves it alone."""

    def of_inputs(self, operand: Operand) -> Operand:
        """For q, k and v."""
        return operand

    def of_output(self, operand: Operand) -> Operand:
        """For the output projection."""
        return operand


class _ScalarGains(AttentionGains):
    inputs: Tensor
    output: Tensor

    def __init__(self, inputs: float, output: float) -> None:
        super().__init__()
        self.declare("inputs", torch.tensor(inputs), Role.GAIN)
        self.declare("output", torch.tensor(output), Role.GAIN)

    def of_inputs(self, operand: Operand) -> Operand:
        return lambda weight, x: operand(weight * self.inputs.to(weight.dtype), x)

    def of_output(self, operand: Operand) -> Operand:
        return lambda weight, x: operand(weight * self.output.to(weight.dtype), x)
