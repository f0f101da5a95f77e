"""The artifact format: exact round trips, the same bytes for the same input, small, written whole or not at all."""

import io
import json
import os
import zlib

import pytest
import torch
from artifact_forge import take_apart
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.compress.codecs import Brotli, Mixing, Store, Xz, Zlib, Zstd
from underpar.compress.container import read_artifact
from underpar.compress.encoded import DTYPES, Encoded, dtype_name
from underpar.compress.quantise import Int8PerRow, RoundToNearest, dequantise, keep, quantise
from underpar.compress.writer import ByRole, ByShape, ByTensor, OneStream, build_artifact, table_bytes, write_artifact
from underpar.core.errors import ArtifactError
from underpar.core.roles import Role

HEADER = {"model": {"type": "GPTConfig", "num_layers": 2}, "tokenizer": {"name": "byte260"}, "note": "ünï\u0000cödé"}
CODECS = [Store(), Zlib(), Zstd(level=9), Brotli(quality=5), Xz(preset=0), Mixing()]


def assert_same(data: bytes, encoded: list[Encoded]) -> None:
    artifact = read_artifact(data)
    assert artifact.names == [item.name for item in encoded]
    for name, tensor in dequantise(encoded).items():
        found = artifact.tensor(name)
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor), name
    assert artifact.roles == {item.name: item.role for item in encoded}


@pytest.mark.parametrize("grouping", [ByRole(), ByShape(), OneStream(), ByTensor()], ids=str)
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_round_trip(trained_like, codec, grouping) -> None:
    encoded = quantise(trained_like, RoundToNearest(bits=6))
    data, info = build_artifact(HEADER, encoded, codec, grouping)
    assert_same(data, encoded)
    artifact = read_artifact(data)
    assert artifact.header == HEADER
    assert (info.container_bytes, info.sha256) == (len(data), artifact.sha256)
    assert info.header_bytes + sum(info.coded_bytes.values()) == len(data)
    assert info.payload_bytes == sum(item.payload_bytes for item in encoded)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
ITEMS = st.tuples(
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 5), max_size=4),
    st.sampled_from(list(Role)),
    st.integers(0, 10**6),
)


@settings(max_examples=60)
@given(items=st.dictionaries(NAMES, ITEMS, max_size=6), codec=st.sampled_from(CODECS))
def test_any_dtype_shape_and_name_survives(items, codec) -> None:
    encoded = []
    for name, (dtype, shape, role, seed) in items.items():
        values = torch.randint(0, 2 if dtype == "bool" else 100, shape, generator=torch.Generator().manual_seed(seed))
        encoded.append(keep(name, values.to(DTYPES[dtype]), role, DTYPES[dtype]))
    data, _ = build_artifact({"n": len(items)}, encoded, codec)
    assert_same(data, encoded)
    assert build_artifact({"n": len(items)}, encoded, codec)[0] == data


def test_the_same_input_gives_the_same_bytes(trained_like) -> None:
    first, second = (
        build_artifact(header, quantise(trained_like, Int8PerRow()), Zlib())[0]
        for header in ({"a": 1, "b": [2.5, None]}, {"b": (2.5, None), "a": 1})
    )
    assert first == second


def test_a_reader_of_the_description_gets_the_same_weights(trained_like) -> None:
    """docs/artifact.md followed with zlib and torch alone."""
    encoded = quantise(trained_like, RoundToNearest(bits=7))
    document, blobs = take_apart(build_artifact(HEADER, encoded, Zlib())[0])
    expected, at = dequantise(encoded), [0] * len(blobs)
    streams = []
    for entry, blob in zip(document["streams"], blobs, strict=True):
        data = zlib.decompress(blob) if entry["codec"] == "zlib" else blob
        flat = torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(entry["planes"], -1)
        streams.append(bytes(flat.T.contiguous().reshape(-1).tolist()))
    for row in document["tensors"]:
        parts = {}
        for part in row["parts"]:
            dtype, shape, stream = getattr(torch, part["dtype"]), part["shape"], part["stream"]
            size = dtype.itemsize * torch.Size(shape).numel()
            raw = bytearray(streams[stream][at[stream] : at[stream] + size])
            at[stream] += size
            flat = torch.frombuffer(raw, dtype=dtype)
            parts[part["name"]] = flat.reshape(shape[::-1]).T if part["order"] == "columns" else flat.reshape(shape)
        if row["method"] == "scaled":
            weight = parts["codes"].float() * parts["scales"].float()[:, None]
        else:
            weight = parts["values"]
        assert torch.equal(weight.to(getattr(torch, row["dtype"])), expected[row["name"]]), row["name"]


def published_bytes(encoded: list[Encoded]) -> int:
    """The published container of the same parts: torch.save of a dictionary, zlib level 9."""
    tensors = {f"{kind}.{item.name}": part for item in encoded for kind, part in item.parts.items()}
    meta = {"__format__": "int8_per_row", "dtypes": {item.name: item.dtype for item in encoded}}
    buffer = io.BytesIO()
    torch.save(tensors | meta, buffer)
    return len(zlib.compress(buffer.getvalue(), 9))


@pytest.mark.parametrize("quantiser", [Int8PerRow(), RoundToNearest(), RoundToNearest(bits=6)], ids=str)
def test_smaller_than_the_published_container(trained_like, quantiser) -> None:
    encoded = quantise(trained_like, quantiser)
    ours = build_artifact(HEADER, encoded, Zlib())[1].container_bytes
    assert ours < 0.995 * published_bytes(encoded)


def test_table_bytes_is_the_overhead(trained_like) -> None:
    encoded = quantise(trained_like, Int8PerRow())
    assert abs(table_bytes(encoded) - build_artifact({}, encoded, Zlib())[1].header_bytes) <= 16


def test_what_cannot_be_written_is_named() -> None:
    item = keep("w", torch.ones(3), Role.GAIN, torch.float32)
    with pytest.raises(ArtifactError, match="two tensors are called 'w'"):
        build_artifact({}, [item, item], Store())
    for header in ({"x": float("nan")}, {"x": object()}, {"x": b"bytes"}):
        with pytest.raises(ArtifactError, match="header is not JSON"):
            build_artifact(header, [item], Store())
    with pytest.raises(ArtifactError, match="keep data out of the header"):
        build_artifact({"x": os.urandom(2 << 20).hex()}, [item], Store())
    with pytest.raises(ArtifactError, match="complex64 cannot be stored"):
        dtype_name(torch.complex64)
    wrong = Encoded("w", Role.MATRIX, (2, 2), "float32", "scaled", {"codes": torch.zeros(2, 3, dtype=torch.int8)})
    with pytest.raises(ArtifactError, match="'scales'"):
        build_artifact({}, [wrong], Store())


def test_writing_is_atomic(tmp_path, monkeypatch) -> None:
    path = tmp_path / "new" / "model.upar"
    item = keep("w", torch.ones(3), Role.GAIN, torch.float32)
    write_artifact(path, {"version": 1}, [item], Zlib())

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(ArtifactError, match="No space left"):
            write_artifact(path, {"version": 2}, [item], Zlib())
    assert read_artifact(path).header == {"version": 1}
    assert [p.name for p in path.parent.iterdir()] == ["model.upar"]


def test_files_that_are_none(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        read_artifact(tmp_path / "absent.upar")
    with pytest.raises(ArtifactError, match="cannot read"):
        read_artifact(tmp_path)
    other = tmp_path / "config.json"
    other.write_text(json.dumps({"a": 1}))
    with pytest.raises(ArtifactError, match="not an artifact"):
        read_artifact(other)
    with pytest.raises(ArtifactError, match="more than the limit"):
        read_artifact(other, max_bytes=3)


def test_an_unknown_tensor_names_the_nearest() -> None:
    data, _ = build_artifact({}, [keep("blocks.0.q", torch.ones(3), Role.GAIN, torch.float32)], Store())
    with pytest.raises(ArtifactError, match=r"did you mean 'blocks\.0\.q'"):
        read_artifact(data).tensor("blocks.0.k")
