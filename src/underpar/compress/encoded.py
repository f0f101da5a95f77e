"""One stored tensor: named integer and float arrays, the method that turns them back into weights, and its few numbers.

Every quantiser ends here and every reader starts here. A new method (a low-rank correction, a row order, a trained
codebook) is one more entry of `METHODS`; the container does not change.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from underpar.compress.trellis import halves
from underpar.core.errors import ArtifactError, suggest
from underpar.core.roles import Role

DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint16, torch.uint8, torch.bool),
    )
}
"""The element types that an artifact can hold, by the name written in it."""


FLOATS = tuple(name for name, dtype in DTYPES.items() if dtype.is_floating_point)


def dtype_name(dtype: torch.dtype) -> str:
    """'float32' for torch.float32. Raises ArtifactError for a dtype that no artifact can hold."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ArtifactError(f"dtype {name} cannot be stored; convert the tensor to one of {', '.join(DTYPES)}")
    return name


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tensor as it is stored."""

    name: str
    role: Role
    shape: tuple[int, ...]
    dtype: str
    """Element type of the tensor that `decode` returns."""
    method: str
    parts: Mapping[str, torch.Tensor]
    """Named arrays, such as 'codes' (int8, the tensor's shape) and 'scales' (float16, one a row)."""
    meta: Mapping[str, int | float | str] = field(default_factory=dict)

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all parts before entropy coding."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())


@dataclass(frozen=True)
class PartRule:
    """What one part of a method must look like: any of these element types, any of these shapes.

    `divides`: instead of the shapes, one dimension that divides so many elements of the part named.
    """

    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    divides: str | None = None


@dataclass(frozen=True, eq=False)
class Method:
    """A way of storing a tensor: the parts it needs (judged before any array is built) and how to undo it."""

    rules: Callable[[tuple[int, ...], str], dict[str, PartRule]]
    """(shape, dtype) -> part -> rule."""
    decode: Callable[[Encoded], torch.Tensor]


def check_parts(
    name: str,
    method: str,
    shape: tuple[int, ...],
    dtype: str,
    parts: Mapping[str, tuple[str, tuple[int, ...]]],
) -> None:
    """Raise ArtifactError unless `parts` (part -> element type, shape) are those of `method` for a tensor of `shape`."""
    if method not in METHODS:
        raise ArtifactError(f"tensor {name!r}: unknown method {method!r}; {suggest(method, METHODS)}")
    if dtype not in DTYPES:
        raise ArtifactError(f"tensor {name!r}: unknown dtype {dtype!r}; {suggest(dtype, DTYPES)}")
    rules = METHODS[method].rules(shape, dtype)
    if set(parts) != set(rules):
        raise ArtifactError(f"tensor {name!r}: method {method} has parts {sorted(rules)}, found {sorted(parts)}")
    for part, rule in rules.items():
        kind, size = parts[part]
        if rule.divides is not None:
            whole = math.prod(parts[rule.divides][1])
            fits = len(size) == 1 and size[0] > 0 and whole % size[0] == 0
        else:
            fits = size in rule.shapes
        if kind not in rule.dtypes or not fits:
            raise ArtifactError(
                f"tensor {name!r}: part {part!r} is {kind} {list(size)}, method {method} needs "
                f"{' or '.join(rule.dtypes)} of shape {_shapes(rule)}"
            )


def _shapes(rule: PartRule) -> str:
    if rule.divides is not None:
        return f"[n] for an n that divides the elements of {rule.divides!r}"
    shown = [str(list(shape)) for shape in rule.shapes[:3]]
    return " or ".join(shown) + (", ..." if len(rule.shapes) > len(shown) else "")


def decode(encoded: Encoded) -> torch.Tensor:
    """The tensor in its recorded shape and dtype. Raises ArtifactError: a part is wrong, a value is not finite."""
    found = {part: (dtype_name(array.dtype), tuple(array.shape)) for part, array in encoded.parts.items()}
    check_parts(encoded.name, encoded.method, encoded.shape, encoded.dtype, found)
    tensor = METHODS[encoded.method].decode(encoded)
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ArtifactError(f"tensor {encoded.name!r}: decoded values are not all finite")
    return tensor


# ------------------------------------------------------------------------------------------------- plain


def _plain_rules(shape: tuple[int, ...], dtype: str) -> dict[str, PartRule]:
    """Floats may be stored in another float type; everything else as it is."""
    return {"values": PartRule(FLOATS if dtype in FLOATS else (dtype,), (shape,))}


def _decode_plain(encoded: Encoded) -> torch.Tensor:
    return encoded.parts["values"].to(DTYPES[encoded.dtype])


# ------------------------------------------------------------------------------------------------- scaled


def _scaled_rules(shape: tuple[int, ...], dtype: str) -> dict[str, PartRule]:
    if dtype not in FLOATS:
        raise ArtifactError(f"method scaled stores floats, not {dtype}")
    return {
        "codes": PartRule(("int8",), (shape,)),
        "scales": PartRule(("float16", "float32"), ((), shape[:1])),
    }


def _decode_scaled(encoded: Encoded) -> torch.Tensor:
    """codes * scales in fp32, then the recorded dtype. Codes outside [meta.low, meta.high] are refused."""
    codes, scales = encoded.parts["codes"], encoded.parts["scales"]
    low, high = encoded.meta.get("low"), encoded.meta.get("high")
    if type(low) is not int or type(high) is not int or not -128 <= low <= high <= 127:
        raise ArtifactError(f"tensor {encoded.name!r}: code range [{low!r}, {high!r}] is not within [-128, 127]")
    if codes.numel():
        least, most = (int(value) for value in torch.aminmax(codes))
        if least < low or most > high:
            raise ArtifactError(f"tensor {encoded.name!r}: codes {least} to {most} leave their range [{low}, {high}]")
    wide = scales.float()
    if not bool(torch.isfinite(wide).all()) or bool((wide < 0).any()):
        raise ArtifactError(f"tensor {encoded.name!r}: scales must be finite and not negative")
    if wide.ndim:
        wide = wide.reshape(-1, *(1,) * (codes.ndim - 1))
    return (codes.float() * wide).to(DTYPES[encoded.dtype])


# ------------------------------------------------------------------------------------------------- scaled+lowrank

MAX_RANK = 64
"""Of a correction."""


def _lowrank_rules(shape: tuple[int, ...], dtype: str) -> dict[str, PartRule]:
    """Ranks and groups are compared with each other in decoding; here every part is bounded by itself."""
    if len(shape) != 2:
        raise ArtifactError(f"a low-rank correction is for matrices, not for shape {list(shape)}")
    rows, cols = shape
    ranks = range(1, MAX_RANK + 1)
    return _scaled_rules(shape, dtype) | {
        "left": PartRule(("int8",), tuple((rows, rank) for rank in ranks)),
        "left_scales": PartRule(("float16",), ((), (rows,))),
        "right": PartRule(("int8",), tuple((rank, cols) for rank in ranks)),
        "right_scales": PartRule(("float16",), (), divides="right"),
    }


def _decode_lowrank(encoded: Encoded) -> torch.Tensor:
    """The scaled codes plus left @ right, in fp32, rank by rank: a matrix product would add up in an order of its own."""
    total = _decode_scaled(replace(encoded, dtype="float32"))
    left, right = (_factor(encoded, side) for side in ("left", "right"))
    if left.shape[1] != right.shape[0]:
        raise ArtifactError(f"tensor {encoded.name!r}: factors of rank {left.shape[1]} and {right.shape[0]} do not fit")
    for k in range(left.shape[1]):
        total += left[:, k : k + 1] * right[k : k + 1]
    return total.to(DTYPES[encoded.dtype])


def _factor(encoded: Encoded, side: str) -> torch.Tensor:
    """One factor in fp32; each of its scales is for an equal run of its elements."""
    codes, scales = encoded.parts[side], encoded.parts[f"{side}_scales"].float()
    if not bool(torch.isfinite(scales).all()) or bool((scales < 0).any()):
        raise ArtifactError(f"tensor {encoded.name!r}: scales must be finite and not negative")
    if codes.numel() == 0:
        return codes.float()
    return (codes.float().reshape(scales.numel(), -1) * scales.reshape(-1, 1)).reshape(codes.shape)


# ------------------------------------------------------------------------------------------------- grid

OCTAVE = 8
"""Steps of a grid are powers of 2^(1/OCTAVE)."""
_FRACTIONS = (1.0, 1.0905077, 1.1892071, 1.2968396, 1.4142135, 1.5422108, 1.6817929, 1.8340081)
"""2^(k/8) in float32, digits that round to it."""


def grid_steps(exponents: torch.Tensor) -> torch.Tensor:
    """2^(exponents / OCTAVE) in float32, the same on every platform. exponents: integers within +-OCTAVE * 120."""
    wide = exponents.long()
    fractions = torch.tensor(_FRACTIONS, dtype=torch.float32, device=exponents.device)
    powers = (wide.div(OCTAVE, rounding_mode="floor") + 127 << 23).int().view(torch.float32)
    return fractions[wide.remainder(OCTAVE)] * powers


def _grid_rules(shape: tuple[int, ...], dtype: str) -> dict[str, PartRule]:
    if dtype not in FLOATS or len(shape) != 2:
        raise ArtifactError(f"grids store matrices of floats, not {dtype} of shape {list(shape)}")
    return {
        "codes": PartRule(("int8",), (shape,)),
        "row_steps": PartRule(("int8",), (shape[:1],)),
        "column_steps": PartRule(("int8",), (shape[1:],)),
    }


def _decode_trellis(encoded: Encoded) -> torch.Tensor:
    """As `_decode_grid`, with half a step more for the codes that the trellis says so of."""
    return _on_grid(encoded, encoded.parts["codes"].float() + 0.5 * halves(encoded.parts["codes"]))


def _decode_grid(encoded: Encoded) -> torch.Tensor:
    """codes * 2^((base + row) / 8) * 2^(column / 8), in fp32, then the recorded dtype."""
    return _on_grid(encoded, encoded.parts["codes"].float())


def _on_grid(encoded: Encoded, values: torch.Tensor) -> torch.Tensor:
    base = encoded.meta.get("base")
    if type(base) is not int or abs(base) > OCTAVE * 64:
        raise ArtifactError(f"tensor {encoded.name!r}: base {base!r} is not an integer within +-{OCTAVE * 64}")
    rows = grid_steps(encoded.parts["row_steps"].long() + base)
    columns = grid_steps(encoded.parts["column_steps"])
    return (values * rows[:, None] * columns).to(DTYPES[encoded.dtype])


METHODS: dict[str, Method] = {
    "plain": Method(_plain_rules, _decode_plain),
    "scaled": Method(_scaled_rules, _decode_scaled),
    "scaled+lowrank": Method(_lowrank_rules, _decode_lowrank),
    "grid": Method(_grid_rules, _decode_grid),
    "trellis": Method(_grid_rules, _decode_trellis),
}
"""Every way of storing a tensor, by the name written in the artifact."""
