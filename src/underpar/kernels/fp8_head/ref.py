"""Products of fp8 numbers in plain torch: what the matrix units of Hopper compute, up to the order of sums."""

import torch
from torch import Tensor

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
LARGEST_E4M3 = 448.0


def quantise(values: Tensor, unit: Tensor | float, dtype: torch.dtype = E4M3) -> Tensor:
    """values / unit in fp8, what is beyond the largest number cut to it. The plain cast would make it NaN."""
    limit = torch.finfo(dtype).max
    return (values.float() / unit).clamp(-limit, limit).to(dtype)


def product(a: Tensor, b: Tensor, unit_a: Tensor, unit_b: Tensor, dtype: torch.dtype) -> Tensor:
    """(a * unit_a) @ (b * unit_b) of fp8 matrices (m, k) and (k, n), in `dtype`."""
    return ((a.float() @ b.float()) * (unit_a * unit_b)).to(dtype)
