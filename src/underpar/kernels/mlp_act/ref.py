"""The squared-ReLU MLP in plain torch: the definition of correct."""

import torch
import torch.nn.functional as F
from torch import Tensor


def mlp_act(x: Tensor, w_up: Tensor, w_down: Tensor, negative_slope: float) -> Tensor:
    """f(x w_up^T) w_down^T with f(u) = u^2 for u > 0 and (negative_slope u)^2 otherwise. x (..., D) -> (..., D')."""
    return F.linear(squared(F.linear(x, w_up), negative_slope), w_down)


def squared(pre: Tensor, negative_slope: float) -> Tensor:
    """(leaky) ReLU squared, elementwise."""
    return torch.square(F.leaky_relu(pre, negative_slope) if negative_slope else F.relu(pre))
