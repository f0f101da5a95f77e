"""The residual stream as a weighted sum that is only added up where it is read.

Branch outputs, their scales, skips and lanes are all terms `weight * tensor` with a weight per dimension. Kept apart until a
branch wants the normalised sum, they cost one pass over memory there instead of one each.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from underpar.kernels.residual_norm import residual_mix_norm, residual_norm
from underpar.nn.norm import EPS

Term = tuple[Tensor, Tensor | None]
"""A (..., D) tensor and its (D,) or () weight; None stands for one."""


@dataclass(frozen=True)
class Stream:
    """A sum of terms, each tensor once."""

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, x: Tensor) -> Stream:
        return cls(((x, None),))

    def plus(self, x: Tensor, weight: Tensor | None) -> Stream:
        """The sum with one term more; a tensor that is in it already gets a larger weight."""
        for index, (there, old) in enumerate(self.terms):
            if there is x:
                both = (1.0 if old is None else old) + (1.0 if weight is None else weight)
                return Stream((*self.terms[:index], (x, torch.as_tensor(both)), *self.terms[index + 1 :]))
        return Stream((*self.terms, (x, weight)))

    def times(self, weight: Tensor) -> Stream:
        """The sum with every term's weight multiplied by a (D,) or () weight."""
        return Stream(tuple((x, weight if old is None else weight * old) for x, old in self.terms))

    def __add__(self, other: Stream) -> Stream:
        total = self
        for x, weight in other.terms:
            total = total.plus(x, weight)
        return total

    def total(self) -> Tensor:
        """The sum itself, (..., D)."""
        if len(self.terms) == 1 and self.terms[0][1] is None:
            return self.terms[0][0]
        parts = [x.float() if w is None else w * x.float() for x, w in self.terms]
        return functools.reduce(torch.add, parts).to(self.terms[0][0].dtype)

    def normed(self, gain: float = 1.0) -> tuple[Tensor, Tensor]:
        """The sum, and gain * sum / rms(sum)."""
        return residual_norm(*self._split(), gain=gain, eps=EPS)

    def mixed(self, x0: Tensor, mix: Tensor, gain: float, *, keep_total: bool) -> tuple[Tensor | None, Tensor, Tensor]:
        """The sum if kept, m = mix[0] * sum + mix[1] * x0, and gain * m / rms(m). mix: (2, D)."""
        return residual_mix_norm(*self._split(), x0, mix, gain=gain, eps=EPS, keep_total=keep_total)

    def _split(self) -> tuple[list[Tensor], list[Tensor | None]]:
        width = self.terms[0][0].shape[-1]
        weights = [None if w is None else w.expand(width) for _, w in self.terms]
        return [x for x, _ in self.terms], weights
