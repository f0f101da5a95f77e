"""Rotary position embedding in the half-split form. Source: arXiv:2104.09864."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from underpar.core.config import Config, PositiveFloat, PositiveInt, config
from underpar.core.errors import ConfigError


@config
class Rope(Config):
    """Rotate pairs (i, i + dims/2) of each head by position * base^(-2i/dims)."""

    base: PositiveFloat = 10_000.0
    dims: PositiveInt | None = None
    """Leading dimensions of a head that are rotated; the rest carry no position. None rotates all."""

    def check(self) -> None:
        if self.dims is not None and self.dims % 2:
            raise ConfigError(f"dims = {self.dims} must be even")

    def base_for(self, length: int, dims: int) -> float:
        """The base for segments of at most `length` tokens."""
        return self.base

    def rotated(self, head_dim: int) -> int:
        """How many leading dimensions of a head are rotated."""
        return self.dims or head_dim

    def frequencies(self, head_dim: int, length: int, window: int | None, device: torch.device) -> Tensor:
        """(dims / 2,) float32 radians a position.

        length: the longest segment that attention meets. window: the long window, where layers have windows.
        """
        dims = self.rotated(head_dim)
        exponent = torch.arange(0, dims, 2, dtype=torch.float32, device=device) / dims
        return self.base_for(length, dims) ** -exponent

    def softmax_scale(self, window: int | None) -> float | None:
        """What scores are multiplied by before the softmax; None is the usual 1 / sqrt(head_dim)."""
        return None

    def tables(self, positions: Tensor, head_dim: int, length: int, window: int | None = None) -> tuple[Tensor, Tensor]:
        """cos and sin, (T, dims / 2) float32, of positions (T,). Only differences of positions matter.

        length, window: as in `frequencies`.
        """
        angles = torch.outer(positions.float(), self.frequencies(head_dim, length, window, positions.device))
        return angles.cos(), angles.sin()


@config
class StretchedRope(Rope):
    """Beyond the row length of training the base grows by (length / train_length)^(dims / (dims - 2)).

    Positions further apart than any in training then turn no further than those did. Called YaRN in the scripts of golf and
    off in all six of its documented recipes. Source: the NTK-aware interpolation behind arXiv:2309.00071.
    """

    train_length: PositiveInt = 2048

    def base_for(self, length: int, dims: int) -> float:
        if length <= self.train_length or dims <= 2:
            return self.base
        return self.base * (length / self.train_length) ** (dims / (dims - 2))


@config
class EndpointRope(Rope):
    """Frequencies from 1 to 1 / base inclusive over the rotated dimensions, by default half of a head; its own softmax scale.

    The records turn adjacent dimensions and this turns halves: the same up to the order of a head's dimensions, which is drawn
    at random. Source: modded-nanogpt, record 17 on ("half-truncated").
    """

    base: PositiveFloat = 1024.0
    scale: PositiveFloat = 0.1
    """What scores are multiplied by before the softmax."""

    def rotated(self, head_dim: int) -> int:
        return self.dims or head_dim // 4 * 2

    def frequencies(self, head_dim: int, length: int, window: int | None, device: torch.device) -> Tensor:
        return self.base ** -torch.linspace(0.0, 1.0, self.rotated(head_dim) // 2, device=device)

    def softmax_scale(self, window: int | None) -> float:
        return self.scale


@config
class WindowRope(EndpointRope):
    """Frequencies that slow down, and scores that grow, each time the long window does.

    At a change from w to w' tokens a frequency f that makes r = w f / 2 pi turns in a window is multiplied by
    w/w' + u (1 - w/w') with u = (r - 1) / 31 between 0 and 1, and scores by 1 + ln(w'/w) / 5. A long window that is not among
    `windows` changes nothing, as in scoring with a longer one. Source: modded-nanogpt, record 31; YaRN, arXiv:2309.00071.
    """

    windows: tuple[PositiveInt, ...] = (384, 896, 1408, 1664)
    """Long windows of training, in tokens and in order."""

    def check(self) -> None:
        Rope.check(self)
        if list(self.windows) != sorted(set(self.windows)):
            raise ConfigError(f"windows = {self.windows} must grow from one to the next")

    def frequencies(self, head_dim: int, length: int, window: int | None, device: torch.device) -> Tensor:
        found = EndpointRope.frequencies(self, head_dim, length, window, device)
        for before, after in self._changes(window):
            turns = before * found / (2 * math.pi)
            kept = ((turns - 1) / 31).clamp(0, 1)
            found = found * (before / after + kept * (1 - before / after))
        return found

    def softmax_scale(self, window: int | None) -> float:
        scale = self.scale
        for before, after in self._changes(window):
            scale *= 1 + 0.2 * math.log(after / before)
        return scale

    def _changes(self, window: int | None) -> list[tuple[int, int]]:
        """The changes up to that window; all of them where it is none of training's."""
        reached = self.windows.index(window) if window in self.windows else len(self.windows) - 1
        return list(pairwise(self.windows[: reached + 1]))
