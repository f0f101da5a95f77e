"""Steps by what errors cost: a grid whose rows and columns are as fine as the loss needs, and no finer.

To second order an error dw at row r and column j adds g_r * d_j * dw^2 / 2 to the loss of a token: g_r is the mean square of
the loss's derivative by output r, d_j the variance of input j that later columns, which GPTQ lets make up for the error, do not
explain. A step s costs s^2 / 12 of squared error and saves log2(s) bits. Where the sum of both is least, every weight of every
matrix costs the same: s = step / sqrt(g_r * d_j), with one `step` for the whole model. No clip, width or layer is left to tune.

The reverse water-filling of rate-distortion theory, in the form that successive cancellation (GPTQ) needs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from underpar.compress.encoded import OCTAVE, Encoded, dtype_name, grid_steps
from underpar.compress.gptq import NEAREST, Hessian, column_order, feed_back, inverse_factor, without_dead
from underpar.compress.rounding import Rounding
from underpar.core.errors import ArtifactError
from underpar.core.roles import Role

HIGH = 127
LARGEST = 120
"""Codes that rows are kept within before feedback moves them; a row that would exceed it gets a larger step."""
STEP_RANGE = 127


@dataclass(frozen=True, eq=False)
class Prepared:
    """Matrices of one shape with all that does not depend on the step."""

    names: Sequence[str]
    roles: Sequence[Role]
    dtypes: Sequence[str]
    scaled: torch.Tensor
    """(batch, rows, cols): the weights divided by the columns' steps."""
    factor: torch.Tensor
    order: torch.Tensor
    row_logs: torch.Tensor
    """(batch, rows): log2 of the rows' steps, but for the model's."""
    column_steps: torch.Tensor
    """(batch, cols) int: exponents, in eighths of an octave."""

    def encode(self, step: float, rounding: Rounding = NEAREST) -> list[Encoded]:
        """The matrices on the grid of `step`."""
        wanted = OCTAVE * (self.row_logs + torch.log2(torch.tensor(step)))
        needed = OCTAVE * torch.log2((self.scaled.abs().amax(2) / LARGEST).clamp_min(2.0**-60))
        exponents = torch.maximum(wanted.round(), needed.ceil())
        base = exponents.median(1, keepdim=True).values
        rows = (exponents - base).clamp(-STEP_RANGE, STEP_RANGE)
        codes = feed_back(self.scaled, self.factor, self.order, grid_steps(base + rows), HIGH, rounding=rounding)
        return [
            Encoded(
                name,
                self.roles[i],
                tuple(codes.shape[1:]),
                self.dtypes[i],
                rounding.method,
                {
                    "codes": codes[i].cpu(),
                    "row_steps": rows[i].to(torch.int8).cpu(),
                    "column_steps": self.column_steps[i].to(torch.int8).cpu(),
                },
                {"base": int(base[i, 0])},
            )
            for i, name in enumerate(self.names)
        ]

    def estimated_bits(self, step: float) -> float:
        """Entropy of the codes if they are Gaussian with the variance that their row and column have together."""
        rows = self.scaled.square().mean(2) / torch.exp2(2 * self.row_logs) / step**2
        columns = self.scaled.square().mean(1)
        columns /= columns.mean(1, keepdim=True).clamp_min(1e-30)
        some = columns[:, :: max(1, columns.shape[1] // 64)]
        variance = (rows[:, :, None] * some[:, None]).clamp_max(HIGH**2)
        return float(torch.log2(1 + 2 * math.pi * math.e * variance).mean() / 2) * self.scaled.numel()


def prepare(
    names: Sequence[str],
    tensors: Sequence[torch.Tensor],
    roles: Sequence[Role],
    hessians: Sequence[Hessian],
    *,
    damping: float = 0.01,
    gradient_floor: float = 0.3,
    tokens: int | None = None,
) -> Prepared:
    """Factor the Hessians of matrices (rows, cols) of one shape, on the Hessians' device.

    damping: added to the diagonal of H, as a share of its mean. gradient_floor: added to every row's mean square derivative,
    as a share of the mean: what calibration saw little of is not free. Without derivatives a matrix's outputs count equally,
    and by the inverse of their power, so that every matrix is hurt by the same share. tokens: of the calibration text, fewer
    than a Hessian's where a recurrent layer met each several times and its errors count as often; None: no such layer.
    """
    device = hessians[0].gram.device
    weights = torch.stack([tensor.to(device, torch.float32) for tensor in tensors])
    grams = torch.stack([hessian.gram.float() / hessian.tokens for hessian in hessians])
    order = column_order(grams)
    factor = inverse_factor(grams, order, damping)
    logs = torch.empty_like(factor[:, 0]).scatter_(1, order, torch.log2(torch.diagonal(factor, dim1=1, dim2=2)))
    middle = logs.median(1, keepdim=True).values
    exponents = (OCTAVE * (logs - middle)).round().clamp(-STEP_RANGE, STEP_RANGE)
    columns = grid_steps(exponents)
    costs = torch.stack([_row_costs(*item, tokens) for item in zip(weights, grams, hessians, strict=True)])
    costs = costs + gradient_floor * costs.mean(1, keepdim=True)
    if not bool((costs > 0).all()):
        raise ArtifactError(f"the outputs of {names[0]!r} or another of its shape have no influence; calibrate again")
    return Prepared(
        names,
        roles,
        [dtype_name(tensor.dtype) for tensor in tensors],
        without_dead(weights, grams) / columns[:, None],
        factor / columns.gather(1, order)[:, None],
        order,
        middle - 0.5 * torch.log2(costs),
        exponents.long(),
    )


def _row_costs(weight: torch.Tensor, gram: torch.Tensor, hessian: Hessian, tokens: int | None) -> torch.Tensor:
    """(rows,): what a squared error of each output costs a token of text, over all passes."""
    if hessian.output_gradient is not None:
        return hessian.output_gradient.to(gram.device, torch.float32) / (tokens or hessian.tokens)
    power = (weight @ gram * weight).sum(1).mean().clamp_min(1e-20)
    return torch.ones(len(weight), device=gram.device) / power
