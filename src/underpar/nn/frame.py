"""What every block of one forward pass is given besides the stream, and what may watch or add to its linear layers."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from underpar.core.phase import WindowSizes
from underpar.data.context import Context


class Visit:
    """Called at every site of one block execution; the identity. Calibration records, adapters add.

    A site is a linear layer, named "q", "k", "v", "out", "up" or "down", or a whole branch, "attention" or "mlp", whose input
    is the normalised stream and whose output is what the branch adds to it.
    """

    needs_hidden: bool = False
    """Whether "up" and "down" are wanted: the fused MLP keeps its hidden activations to itself otherwise."""

    def __call__(self, site: str, x: Tensor, y: Tensor) -> Tensor:
        """x: what the site read, (B, T, in). y: what it computed, (B, T, out). Returns what the model goes on with."""
        return y


class Visitor(Protocol):
    """Hands out the visit of each execution: a recurrent layer is met once a pass, and each pass is another execution."""

    def at(self, execution: int, layer: int) -> Visit:
        """The visit of the plan's execution number `execution`, which runs physical block `layer`."""
        ...

    def head(self) -> Visit:
        """The visit of the output projection, whose one site is "head": logits before the soft-cap."""
        ...


NO_VISIT = Visit()

Operand = Callable[[Tensor, "Tensor"], Tensor]
"""(weight, x) -> the weight as the product with x takes it."""


class Rotation(NamedTuple):
    """cos and sin of every position, (T, rotated / 2) float32; of paired heads (T, 2, rotated / 2), for even and odd ones."""

    cos: Tensor
    sin: Tensor


class PairedStream(NamedTuple):
    """Facts of the doubled stream of paired heads (`underpar.nn.pairs`): angles of its slots, and its segments."""

    rotation: Rotation
    cu_seqlens: Tensor | None


class Frame(NamedTuple):
    """Facts of one forward pass.

    x0: (B, T, model_dim), the normalised embedding.
    rotation: of every position. paired: the same for paired heads, None where the model has none.
    windows: reach of windowed attention, None where there is none.
    values: what the value embedding looked up, or None.
    bigram: (B, T, model_dim) bigram embedding that every block may mix in, or None.
    operand: turns a stored weight into the operand of a product: a cast, or fake quantisation.
    """

    x0: Tensor
    ctx: Context
    rotation: Rotation
    paired: PairedStream | None
    windows: WindowSizes | None
    values: Any
    bigram: Tensor | None
    operand: Operand


AddValues = Callable[[Tensor, Tensor], Tensor]
"""(v, x) -> v with the layer's value embedding added: v (B, T, num_kv_heads, head_dim), x what attention read."""


def cast(weight: Tensor, x: Tensor) -> Tensor:
    """The weight in the dtype of the activations."""
    return weight.to(x.dtype)
