"""The byte budget: refusing what is over it with advice that was measured, and predicting bytes before anything is trained."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from underpar.compress.codecs import Brotli, Codec, Mixing, Xz, Zlib, Zstd
from underpar.compress.encoded import Encoded
from underpar.compress.quantise import Quantiser
from underpar.compress.writer import coding_bytes, raw_size, table_bytes
from underpar.core.errors import ArtifactError
from underpar.core.roles import Role

SAMPLE_BYTES = 1 << 19
"""Codes that are coded to learn a ratio: large enough that the tables of a coder do not show, small enough for Brotli."""

WEIGHT_STD: Mapping[Role, float] = dict.fromkeys(Role, 1.0)
"""Standard deviation assumed for a trained weight. It matters only to a quantiser with a floor under its scales
(Int8PerRow:
rows whose largest magnitude is below 1), and long runs of Muon without weight decay leave no such row: the 17
M-parameter
baseline's published blob has the size of unfloored rows. Give the real value for short runs or with weight
decay."""

ROW_SPREAD, COLUMN_SPREAD = 0.3, 0.2
"""Standard deviation of the logarithm of a row's and a column's size. Measured after training with Muon: 0.05 to 0.15 in
attention matrices; 0.6 along the hidden units of an MLP, which are the rows of its input and the columns of its output. Uneven
columns raise a row's largest magnitude over its typical one and give adaptive coders something to find; uneven rows matter
under a floor only."""


@dataclass(frozen=True)
class SizeEstimate:
    """Predicted bytes of a container."""

    container_bytes: int
    payload_bytes: int
    """Exact: it does not depend on the values."""
    coded_bytes: Mapping[Role, int]

    def to_json(self) -> dict[str, object]:
        roles = {str(role): count for role, count in self.coded_bytes.items()}
        return {"container_bytes": self.container_bytes, "payload_bytes": self.payload_bytes, "coded_bytes": roles}


def estimate_coded_bytes(
    shapes: Mapping[str, tuple[tuple[int, ...], Role]],
    quantiser: Quantiser,
    codec: Codec,
    *,
    weight_std: Mapping[Role, float] = WEIGHT_STD,
    header_json_bytes: int = 600,
) -> SizeEstimate:
    """The container's size after training, before there is anything to train: trained rows are close to Gaussian.

    One Gaussian tensor of every distinct shape, role and precision is really quantised (GPTQ as if inputs were uncorrelated),
    so the row maxima, clips and floors are those of the real thing, and a sample of its codes goes through the real coder.

    Args:
        shapes: name -> (shape, role). weight_std: standard deviation per role, see WEIGHT_STD.
        header_json_bytes: coded size of what the packer puts into the header besides the table.
    Raises: ArtifactError as the quantiser does. Cost: well under a second with zlib for 17 M parameters, 2 s with Brotli.
    """
    generator = torch.Generator().manual_seed(0)
    weights: dict[tuple[tuple[int, ...], Role], torch.Tensor] = {}
    drawn: dict[tuple[tuple[int, ...], Role, str], Encoded] = {}
    kinds: dict[str, tuple[tuple[int, ...], Role, str]] = {}
    for name, spec in shapes.items():
        if spec not in weights:
            weights[spec] = _like_trained(spec[0], generator) * weight_std[spec[1]]
        precision = quantiser.precision_of(name, weights[spec], spec[1])
        kinds[name] = (*spec, str(precision))
        if kinds[name] not in drawn:
            drawn[kinds[name]] = precision.encode(name, weights[spec], spec[1])
    # Each drawn tensor is coded by itself: a coder would find its copies.
    each = {kind: _coded_bytes([item], codec, SAMPLE_BYTES // len(drawn)) for kind, item in drawn.items()}
    coded: dict[Role, int] = {}
    for kind in kinds.values():
        coded[kind[1]] = coded.get(kind[1], 0) + each[kind]
    encoded = [replace(drawn[kind], name=name) for name, kind in kinds.items()]
    return SizeEstimate(
        container_bytes=sum(coded.values()) + table_bytes(encoded) + header_json_bytes,
        payload_bytes=sum(item.payload_bytes for item in encoded),
        coded_bytes=coded,
    )


def _like_trained(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Gaussian with uneven rows and columns, of unit variance."""
    tensor = torch.randn(shape, generator=generator)
    if len(shape) < 2:
        return tensor
    rows = torch.randn(shape[0], *(1,) * (len(shape) - 1), generator=generator).mul(ROW_SPREAD).exp()
    columns = torch.randn(shape[-1], generator=generator).mul(COLUMN_SPREAD).exp()
    return tensor * rows * columns * math.exp(-(ROW_SPREAD**2) - COLUMN_SPREAD**2)


def check_budget(
    artifact_bytes: int,
    budget_bytes: int,
    encoded: Iterable[Encoded],
    coded_bytes: Mapping[str, int],
    codec: Codec,
) -> None:
    """Raise ArtifactError when the artifact is over its budget, with the largest tensors and the savings on offer.

    Args:
        artifact_bytes: container plus counted code. coded_bytes: per tensor, as `ArtifactInfo` has it.
    Cost: nothing within the budget; over it a few seconds, because every saving named is measured on a sample.
    """
    if artifact_bytes <= budget_bytes:
        return
    items = list(encoded)
    largest = sorted(items, key=lambda item: -coded_bytes[item.name])[:3]
    named = ", ".join(f"{item.name} {coded_bytes[item.name]:,} ({item.role})" for item in largest)
    offers = [f"{what} about -{saved:,}" for what, saved in savings(items, codec) if saved > 0]
    advice = (
        f"Measured on samples: {'; '.join(offers)}" if offers else "No other coder or width helps: shrink the model"
    )
    raise ArtifactError(
        f"artifact is {artifact_bytes:,} bytes, limit {budget_bytes:,} ({artifact_bytes - budget_bytes:,} over). "
        f"Largest: {named}. {advice}."
    )


def savings(encoded: list[Encoded], codec: Codec) -> list[tuple[str, int]]:
    """What each single change would save in bytes: another coder, or one bit less for a role. Largest first."""
    now = {role: _coded_bytes([e for e in encoded if e.role is role], codec) for role in Role}
    offers = []
    for other in (Mixing(), Brotli(), Zstd(), Xz(), Zlib()):
        if other.name != codec.name:
            total = sum(_coded_bytes([e for e in encoded if e.role is role], other) for role in Role)
            offers.append((f"codec {type(other).__name__}", sum(now.values()) - total))
    for role in Role:
        members = [e for e in encoded if e.role is role and "codes" in e.parts]
        if members:
            before, after = (_coded_bytes(group, codec) for group in (members, [coarser(e) for e in members]))
            bits = max(int(e.meta["high"]).bit_length() for e in members)
            offers.append((f"{bits} bits for {role}", before - after))
    return sorted(offers, key=lambda offer: -offer[1])


def coarser(encoded: Encoded) -> Encoded:
    """The same tensor with steps twice as wide: what one bit less comes to."""
    codes = encoded.parts["codes"].short()
    parity = (
        torch.arange(codes.numel()).reshape(codes.shape) & 1
    )  # odd codes lie between two steps: up and down in turn
    codes = ((codes + parity) >> 1).to(torch.int8)
    return replace(encoded, parts=dict(encoded.parts) | {"codes": codes})


def _coded_bytes(encoded: list[Encoded], codec: Codec, sample_bytes: int = SAMPLE_BYTES) -> int:
    """Coded size of the parts, by kind of part, from a sample of each kind."""
    kinds: dict[tuple[str, torch.dtype], list[torch.Tensor]] = {}
    for item in encoded:
        for part, array in item.parts.items():
            kinds.setdefault((part, array.dtype), []).append(array)
    return round(sum(_sampled_bytes(arrays, codec, sample_bytes) for arrays in kinds.values()))


def _sampled_bytes(arrays: list[torch.Tensor], codec: Codec, sample_bytes: int) -> float:
    total = sum(map(raw_size, arrays))
    if total == 0:
        return 0.0
    share = min(1.0, sample_bytes / total)
    sample, pieces = coding_bytes([_some(array, share) for array in arrays], codec)
    return min(len(codec.encode(sample, pieces)), len(sample)) * total / len(sample)


def _some(array: torch.Tensor, share: float) -> torch.Tensor:
    """Evenly spaced columns, whole as they are coded (of a vector: its beginning), at least one."""
    if share == 1.0 or array.ndim == 0:
        return array
    count = max(1, round(array.shape[-1] * share))
    if array.ndim == 1:
        return array[:count]
    return array[..., torch.linspace(0, array.shape[-1] - 1, count).round().long()]
