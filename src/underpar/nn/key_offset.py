"""Keys that carry, in their dimensions without position, what the token before said: a head can match what came next."""

import torch
from torch import Tensor

from underpar.core.config import Config, config, field
from underpar.data.context import Context
from underpar.nn.layers import LayerSet, TheseLayers
from underpar.nn.lookback import previous


class KeyOffset(Config):
    """In some layers the unrotated dimensions of a key come from the token before. Source: modded-nanogpt, record 49."""

    layers: LayerSet

    def __call__(self, k: Tensor, rotated: int, ctx: Context) -> Tensor:
        """k: (B, T, Hkv, D), of which the first `rotated` dimensions have a position. Returns the same shape."""
        moved = previous(k[..., rotated:].flatten(2)).unflatten(2, (k.shape[2], -1))
        own = self.keeps_own(ctx)[..., None, None]
        return torch.cat((k[..., :rotated], torch.where(own, k[..., rotated:], moved)), dim=-1)

    def keeps_own(self, ctx: Context) -> Tensor:
        """(B, T) bool: tokens whose key stays as it is."""
        raise NotImplementedError


@config
class IsolatedKeyOffset(KeyOffset):
    """The first token that attention sees of a document keeps its own key."""

    layers: LayerSet = field(default_factory=lambda: TheseLayers(layers=(3, 10)))

    def keeps_own(self, ctx: Context) -> Tensor:
        return ctx.nothing_before()


@config
class CrossingKeyOffset(KeyOffset):
    """Across documents, as in the records: a document's first token has half the key of the token before it in the row."""

    layers: LayerSet = field(default_factory=lambda: TheseLayers(layers=(3, 10)))

    def keeps_own(self, ctx: Context) -> Tensor:
        first = torch.zeros_like(ctx.document_start)
        first[:, 0] = True
        return first
