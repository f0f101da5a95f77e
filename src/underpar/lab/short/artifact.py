"""Artifacts for a script: it writes one, to the same bytes as `compress.writer`, and reads its own, which it need not doubt."""

import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from underpar.compress import codecs
from underpar.compress.container import DIGEST_FROM, MAGIC, PREFIX, VERSION
from underpar.compress.encoded import DTYPES, METHODS, Encoded
from underpar.compress.quantise import Hessians, NamedTensors, Quantiser, quantise
from underpar.compress.solver import Waterfill, fill_budget
from underpar.core.errors import ArtifactError


class ArtifactInfo(NamedTuple):
    """What was written, in bytes."""

    container_bytes: int


def build_artifact(
    header: Mapping[str, Any], encoded: Iterable[Encoded], codec: codecs.Codec
) -> tuple[bytes, ArtifactInfo]:
    """As `compress.writer.build_artifact`."""
    groups: dict[tuple[object, ...], list[Tensor]] = {}
    table: list[dict[str, Any]] = []
    for item in encoded:
        parts: list[dict[str, Any]] = []
        for part, array in item.parts.items():
            kind, arrays, shape = str(array.dtype)[6:], codec.models_arrays, list(array.shape)
            key = (part, kind, item.role, *(item.shape if arrays else ())) if part == "codes" else ("rest", kind)
            turned = array.ndim == 2 and array.element_size() == 1 and not arrays
            groups.setdefault(key, []).append((array.T if turned else array).cpu().contiguous())
            order, stream = "columns" if turned else "rows", list(groups).index(key)
            parts.append({"name": part, "dtype": kind, "shape": shape, "order": order, "stream": stream})
        table.append({
            "name": item.name, "role": str(item.role), "shape": list(item.shape), "dtype": item.dtype, "method": item.method,
            "meta": dict(item.meta), "parts": parts,
        })  # fmt: skip
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        coded = list(pool.map(lambda group: _coded(group, codec), groups.values()))
    document = {"header": header, "tensors": table, "streams": [entry for entry, _ in coded]}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    block = zlib.compress(text, 9)
    body = PREFIX.pack(MAGIC, bytes(32), VERSION, 0, len(block), len(text))[DIGEST_FROM:] + block
    body += b"".join(blob for _, blob in coded)
    data = MAGIC + hashlib.sha256(body).digest() + body
    return data, ArtifactInfo(len(data))


def _coded(arrays: list[Tensor], codec: codecs.Codec) -> tuple[dict[str, Any], bytes]:
    """A stream's entry in the table, and its bytes."""
    data = b"".join(array.reshape(-1).view(torch.uint8).numpy().tobytes() for array in arrays)
    planes, *others = {array.element_size() for array in arrays}
    if others or codec.models_arrays:
        planes = 1
    elif planes > 1:
        data = np.frombuffer(data, np.uint8).reshape(-1, planes).T.tobytes()
    blob, name = codec.encode(data, [_piece(array.shape, array.element_size()) for array in arrays]), codec.name
    if len(blob) >= len(data):
        blob, name = data, "store"
    sizes = {"coded_bytes": len(blob), "decoded_bytes": len(data)}
    return {"codec": name, **sizes, "crc32": zlib.crc32(blob), "planes": planes}, blob


def _piece(shape: Iterable[int], item_bytes: int) -> codecs.Piece:
    *rows, columns = (1, *shape)
    return codecs.Piece(math.prod(rows), columns, item_bytes)


def pack(
    tensors: NamedTensors,
    header: Mapping[str, Any],
    *,
    quantiser: Quantiser,
    codec: codecs.Codec,
    out_path: Path,
    hessians: Hessians | None,
    budget_bytes: int | None,
    code_bytes: int,
) -> int:
    """As `compress.pack.pack`. Returns the bytes of the file. Raises ArtifactError over the budget, and then writes none."""
    if isinstance(quantiser, Waterfill) and quantiser.step is None and budget_bytes is not None:
        data = fill_budget(tensors, quantiser, hessians, header, codec, budget_bytes - code_bytes)[2]
    else:
        data = build_artifact(header, quantise(tensors, quantiser, hessians), codec)[0]
    total = len(data) + code_bytes
    if budget_bytes is None or total <= budget_bytes:
        out_path.write_bytes(data)
        return len(data)
    raise ArtifactError(f"{total:,} bytes with code, the budget is {budget_bytes:,}; shrink the model")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of an artifact that `build_artifact` made."""
    data = path.read_bytes()
    start = PREFIX.size + PREFIX.unpack_from(data)[4]
    document = json.loads(zlib.decompress(data[PREFIX.size : start]))
    streams, table = document["streams"], document["tensors"]
    pieces: list[list[codecs.Piece]] = [[] for _ in streams]
    for part in (part for item in table for part in item["parts"]):
        step = 1 if part["order"] == "rows" else -1
        pieces[part["stream"]].append(_piece(part["shape"][::step], DTYPES[part["dtype"]].itemsize))
    blobs = []
    for stream in streams:
        blobs.append(data[start : start + stream["coded_bytes"]])
        start += stream["coded_bytes"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = list(pool.map(_opened, streams, blobs, pieces))
    return {item["name"]: _tensor(item, files) for item in table}


def _opened(stream: dict[str, Any], blob: bytes, pieces: list[codecs.Piece]) -> io.BytesIO:
    data = codecs.decode(stream["codec"], blob, stream["decoded_bytes"], pieces)
    return io.BytesIO(np.frombuffer(data, np.uint8).reshape(stream["planes"], -1).T.tobytes())


def _tensor(item: dict[str, Any], files: list[io.BytesIO]) -> Tensor:
    """The next tensor: parts lie in their streams as they stand in the table."""
    parts: dict[str, Tensor] = {}
    for part in item["parts"]:
        dtype, shape = DTYPES[part["dtype"]], part["shape"]
        raw = files[part["stream"]].read(math.prod(shape) * dtype.itemsize)
        if part["order"] == "rows":
            parts[part["name"]] = torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape)
        else:
            parts[part["name"]] = torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape[::-1]).T.contiguous()
    encoded = Encoded(item["name"], item["role"], item["shape"], item["dtype"], item["method"], parts, item["meta"])
    return decode(encoded)


def decode(encoded: Encoded) -> Tensor:
    """The tensor that an encoded one stands for."""
    return METHODS[encoded.method].decode(encoded)
