"""Damaged and hostile artifacts: one ArtifactError each, no crash, no hang, no memory."""

import copy
import json
import random
import resource
import zlib

import pytest
import torch
from artifact_forge import forge, take_apart, with_streams

from underpar.compress.codecs import Brotli, Mixing, Store, Xz, Zlib, Zstd
from underpar.compress.container import read_artifact
from underpar.compress.gptq import Hessian
from underpar.compress.lowrank import AsymmetricLowRank
from underpar.compress.quantise import Float16, IntRows, quantise
from underpar.compress.rounding import Trellis
from underpar.compress.rules import ByRule, Rule
from underpar.compress.waterfill import prepare
from underpar.compress.writer import build_artifact
from underpar.core.errors import ArtifactError
from underpar.core.roles import Role

MAX_BYTES = 1 << 20
MUTATIONS = 10_000


def small_artifact(codec) -> bytes:
    generator = torch.Generator().manual_seed(8)
    tensors = {
        "embed": (torch.randn(20, 12, generator=generator).bfloat16(), Role.EMBEDDING),
        "blocks.0.q": (torch.randn(12, 12, generator=generator), Role.MATRIX),
        "blocks.0.up": (torch.randn(16, 12, generator=generator) * 9, Role.MATRIX),
        "blocks.0.scale": (torch.randn(12, generator=generator), Role.GAIN),
        "blocks.0.gate": (torch.randn(3, generator=generator), Role.GATE),
        "steps": (torch.tensor(5), Role.GAIN),
        "mask": (torch.tensor([True, False, True]), Role.GAIN),
    }
    rules = (Rule(at_most_elements=16, precision=Float16()), Rule(precision=IntRows(bits=6)))
    encoded = quantise(tensors, ByRule(rules=rules, correction=AsymmetricLowRank(rank=2, count=1)))
    assert [item.name for item in encoded if item.method == "scaled+lowrank"] == ["blocks.0.up"]
    white = Hessian(torch.eye(12), 1, torch.ones(16))
    encoded += prepare(["blocks.0.down"], [torch.randn(16, 12, generator=generator)], [Role.MATRIX], [white]).encode(
        0.5, Trellis()
    )
    return build_artifact({"model": {"num_layers": 1}, "names": ["a", "b"]}, encoded, codec)[0]


@pytest.fixture(scope="module")
def originals() -> list[bytes]:
    return [
        small_artifact(codec) for codec in (Store(), Zlib(), Zstd(level=3), Brotli(quality=3), Xz(preset=0), Mixing())
    ]


# ------------------------------------------------------------------------------------------------- mutations


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def set_bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    start = rng.randrange(len(out))
    for at in range(start, min(len(out), start + rng.choice((1, 2, 4, 8, 40)))):
        out[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(out)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def splice(data: bytes, rng: random.Random) -> bytes:
    a, b, c, d = (rng.randrange(len(data) + 1) for _ in range(4))
    piece = data[min(a, b) : max(a, b)]
    return data[: min(c, d)] + piece + data[max(c, d) if rng.random() < 0.5 else min(c, d) :]


NASTY = (
    *(
        None,
        True,
        False,
        "",
        "store",
        "zlib",
        "xz",
        "brotli",
        "zstd",
        "mixing2",
        "plain",
        "scaled",
        "scaled+lowrank",
        "grid",
        "trellis",
        "bool",
        "float64",
        "int8",
        "rows",
    ),
    *(
        -1,
        0,
        1,
        2,
        3,
        8,
        12,
        255,
        2**31 - 1,
        2**31,
        2**32,
        2**63,
        2**64,
        10**40,
        -(2**63),
        0.5,
        1e308,
        "columns",
        "uint16",
    ),
    *(
        [],
        {},
        [0],
        [[]],
        [2**31 - 1] * 8,
        [0, 2**31 - 1, 2**31 - 1, 2**31 - 1],
        "x" * 300,
        "a\nb",
        "\ud800",
        "gain",
        "matrix",
    ),
)


def places(node, found: list) -> list:
    """Every (container, key) of a JSON tree."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        found.append((node, key))
        if isinstance(node[key], dict | list):
            places(node[key], found)
    return found


def edit_header(data: bytes, rng: random.Random) -> bytes:
    """Change the JSON and repair the checksums, so that every check behind them is reached."""
    document, blobs = take_apart(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        part = document if rng.random() < 0.1 else document[rng.choice(("tensors", "streams"))]
        options = places(part, []) if isinstance(part, dict | list) else []
        if not options:
            continue
        node, key = rng.choice(options)
        match rng.randrange(6):
            case 0:
                del node[key]
            case 1 if isinstance(node, list):
                node.insert(rng.randrange(len(node) + 1), copy.deepcopy(node[key]))
            case 2 if type(node[key]) is int:
                node[key] += rng.choice((-1, 1, 7, -100, 1 << 20))
            case 3:
                other, name = rng.choice(options)
                node[key] = copy.deepcopy(other[name])
            case _:
                node[key] = copy.deepcopy(rng.choice(NASTY))
        if not all(isinstance(document.get(k), list) for k in ("tensors", "streams")):
            break
    return forge(document, blobs)


def edit_text(data: bytes, rng: random.Random) -> bytes:
    """Damage the JSON text itself, checksums repaired."""
    document, blobs = take_apart(data)
    text = json.dumps(document).encode()
    return forge(document, blobs, text=rng.choice((flip_bits, set_bytes, truncate, splice))(text, rng))


def edit_streams(data: bytes, rng: random.Random) -> bytes:
    """Damage coded streams, lengths and checksums repaired: the coders and the value checks are reached."""
    document, blobs = take_apart(data)
    at = rng.randrange(len(blobs))
    blobs[at] = rng.choice((flip_bits, set_bytes, truncate, splice))(blobs[at], rng)
    return with_streams(document, blobs)


def swap_streams(data: bytes, rng: random.Random) -> bytes:
    """Streams in another order or under another coder's name, checksums repaired."""
    document, blobs = take_apart(data)
    rng.shuffle(blobs)
    rng.choice(document["streams"])["codec"] = rng.choice(("store", "zlib", "zstd", "brotli", "xz", "zip"))
    return with_streams(document, blobs)


RAW = (flip_bits, set_bytes, truncate, splice)
REPAIRED = (edit_header, edit_header, edit_header, edit_text, edit_streams, edit_streams, swap_streams)


def load_all(data: bytes) -> dict[str, torch.Tensor]:
    artifact = read_artifact(data, max_bytes=MAX_BYTES)
    return {name: artifact.tensor(name) for name in artifact.names}


def test_ten_thousand_mutations(originals) -> None:
    """Plain damage is always noticed. With checksums repaired by the attacker a file may load, but only as finite
    tensors
    within the limit; anything but ArtifactError fails this test."""
    rng = random.Random(20_260_101)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = 0
    for number in range(MUTATIONS):
        data = rng.choice(originals)
        mutate = rng.choice(RAW if number % 2 else REPAIRED)
        mutant = mutate(data, rng)
        if mutant == data:
            continue
        try:
            tensors = load_all(mutant)
        except ArtifactError:
            continue
        assert mutate in REPAIRED, f"{mutate.__name__} went unnoticed"
        loaded += 1
        assert sum(t.numel() * t.element_size() for t in tensors.values()) <= MAX_BYTES
        assert all(bool(torch.isfinite(t).all()) for t in tensors.values() if t.is_floating_point())
    assert 0 < loaded < MUTATIONS // 4  # some edits are harmless, such as another role; the repair itself works
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


# ------------------------------------------------------------------------------------------------- one by one


def edited(data: bytes, change) -> bytes:
    document, blobs = take_apart(data)
    change(document)
    return forge(document, blobs)


def tensor_row(document, name):
    return next(row for row in document["tensors"] if row["name"] == name)


def huge(document):
    """A consistent claim of 1 TiB."""
    row = tensor_row(document, "blocks.0.q")
    for item in (row, *row["parts"]):
        item["shape"] = [1 << 20] if len(item["shape"]) == 1 else [1 << 20, 1 << 20]
    for index, stream in enumerate(document["streams"]):
        sizes = {"int8": 1, "float16": 2, "float32": 4, "int64": 8, "bool": 1}
        parts = [part for r in document["tensors"] for part in r["parts"] if part["stream"] == index]
        stream["decoded_bytes"] = sum(sizes[p["dtype"]] * torch.Size(p["shape"]).numel() for p in parts)


CASES = {
    "two tensors have the same name": lambda d: d["tensors"].append(copy.deepcopy(d["tensors"][0])),
    "unknown method 'gguf'": lambda d: d["tensors"][0].update(method="gguf"),
    "unknown role 'bias'": lambda d: d["tensors"][0].update(role="bias"),
    "unknown dtype 'float8'": lambda d: d["tensors"][0].update(dtype="float8"),
    "part 'codes' is int16": lambda d: tensor_row(d, "embed")["parts"][0].update(dtype="int16"),
    "method scaled stores floats": lambda d: tensor_row(d, "embed").update(dtype="int64"),
    "part 'values' is float16": lambda d: tensor_row(d, "blocks.0.gate").update(dtype="int64"),
    "has parts": lambda d: tensor_row(d, "embed")["parts"].pop(),
    "is in stream 99": lambda d: d["tensors"][0]["parts"][0].update(stream=99),
    "unknown order 'z'": lambda d: d["tensors"][0]["parts"][0].update(order="z"),
    "sizes from 0": lambda d: d["tensors"][0].update(shape=[-1, 5]),
    "more than 1,099,511,627,776 elements": lambda d: d["tensors"][0].update(shape=[0, 2**31 - 1, 2**31 - 1]),
    "code range": lambda d: tensor_row(d, "embed")["meta"].update(high=128),
    "codes .* leave their range": lambda d: tensor_row(d, "embed")["meta"].update(low=-3, high=3),
    "divides the elements of 'right'": lambda d: tensor_row(d, "blocks.0.up")["parts"][5].update(shape=[7]),
    "base 9999 is not": lambda d: tensor_row(d, "blocks.0.down")["meta"].update(base=9999),
    "grids store matrices": lambda d: tensor_row(d, "blocks.0.down").update(dtype="int32"),
    "declares .* its parts have": lambda d: d["streams"][0].update(decoded_bytes=d["streams"][0]["decoded_bytes"] + 1),
    "byte planes": lambda d: d["streams"][0].update(planes=3),
    "streams of .* bytes in a file": lambda d: d["streams"][0].update(coded_bytes=2**62),
    "negative size": lambda d: (
        (d["streams"][0].update(coded_bytes=-8), d["streams"][1].update(coded_bytes=10**6))
        and d["streams"][1].update(coded_bytes=sum(s["coded_bytes"] for s in d["streams"]))
    ),
    "stream 1 is damaged": lambda d: d["streams"][1].update(crc32=1),
    "would take .* more than the limit": huge,
    "expected an object with": lambda d: d.update(extra=1),
    "tensors must be list": lambda d: d.update(tensors={}),
    "tensor name": lambda d: d["tensors"][0].update(name=""),
}


@pytest.mark.parametrize("message", CASES)
def test_each_lie_is_named(originals, message: str) -> None:
    with pytest.raises(ArtifactError, match=message if message != "negative size" else "negative size|streams of"):
        load_all(edited(originals[1], CASES[message]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_bad_scales_are_refused(originals, value: float) -> None:
    document, blobs = take_apart(originals[0])
    at = tensor_row(document, "embed")["parts"][1]["stream"]
    half = torch.tensor([value]).half().view(torch.uint8).tolist()
    raw = bytearray(blobs[at])
    raw[0], raw[len(raw) // 2] = half  # two byte planes
    with pytest.raises(ArtifactError, match="'embed': scales must be finite and not negative"):
        load_all(with_streams(document, [bytes(raw) if i == at else blob for i, blob in enumerate(blobs)]))


def test_damage_is_located(originals) -> None:
    data = bytearray(originals[2])
    data[-1] ^= 1
    with pytest.raises(ArtifactError, match=r"checksum does not match \(stream \d is damaged, bytes"):
        read_artifact(bytes(data))
    with pytest.raises(ArtifactError, match="the file is cut off"):
        read_artifact(bytes(data[:-20]))


def test_other_versions_and_bombs(originals) -> None:
    document, blobs = take_apart(originals[0])
    with pytest.raises(ArtifactError, match=r"version 2\.0 is not readable"):
        read_artifact(forge(document, blobs, version=2))
    with pytest.raises(ArtifactError, match="limits"):
        read_artifact(forge(document, blobs, text=b" " * (17 << 20)))
    with pytest.raises(ArtifactError, match="not JSON"):
        read_artifact(forge(document, blobs, text=b"[" * 100_000))
    with pytest.raises(ArtifactError, match="a key occurs twice"):
        read_artifact(forge(document, blobs, text=b'{"header":{},"header":{},"tensors":[],"streams":[]}'))
    for number in (b"NaN", b"Infinity", b"1e999"):
        text = b'{"header":{"x":%s},"tensors":[],"streams":[]}' % number
        with pytest.raises(ArtifactError, match="not JSON"):
            read_artifact(forge(document, [], text=text))


def test_a_stream_cannot_hold_a_bomb(originals) -> None:
    document, blobs = take_apart(originals[1])
    blobs[0] = zlib.compress(bytes(64 << 20))
    with pytest.raises(ArtifactError, match="unfolds to more than"):
        load_all(with_streams(document, blobs))
