"""Paired heads: two heads share one stream of twice the length, so that a query of one sees the keys of the other.

Position t of the text has the slots 2t and 2t + 1 of the stream. Queries and keys of even heads are turned by the angle of slot
2t, those of odd heads by that of slot 2t + 1; half as many heads remain. A window counts slots, so that it reaches half as many
tokens back. Source: modded-nanogpt, record 58.
"""

from torch import Tensor

from underpar.core.config import Config, config, field
from underpar.nn.layers import LayerSet, TheseLayers


class HeadPairs(Config):
    """Which layers pair their heads, and which head goes to which slot."""

    layers: LayerSet

    def spread(self, x: Tensor) -> Tensor:
        """(B, T, H, D), heads in their order -> (B, 2T, H / 2, D)."""
        raise NotImplementedError

    def merge(self, x: Tensor) -> Tensor:
        """The way back of `spread`."""
        raise NotImplementedError


@config
class RecordedPairs(HeadPairs):
    """The first half of the heads goes to slot 2t, the second half to slot 2t + 1, as a plain reshape has it.

    With six heads the pairs are (0, 3), (1, 4) and (2, 5), while angles alternate from head to head: those of the pair (1, 4)
    are swapped. So it is in the records; whether it helps is not known.
    """

    layers: LayerSet = field(default_factory=lambda: TheseLayers(layers=(0, 2, 5, 9)))

    def spread(self, x: Tensor) -> Tensor:
        batch, length, heads, dim = x.shape
        return x.reshape(batch, 2 * length, heads // 2, dim)

    def merge(self, x: Tensor) -> Tensor:
        batch, slots, pairs, dim = x.shape
        return x.reshape(batch, slots // 2, 2 * pairs, dim)


@config
class AdjacentPairs(HeadPairs):
    """Neighbouring heads are a pair: the even one goes to slot 2t, the odd one to slot 2t + 1, each where its angle is."""

    layers: LayerSet = field(default_factory=lambda: TheseLayers(layers=(0, 2, 5, 9)))

    def spread(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, 2)).transpose(2, 3).flatten(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, 2)).transpose(2, 3).flatten(2, 3)
