"""Containers of published records, to compare with: packed bits, shuffled bytes, groups of reordered rows. Artifacts use none.

Nothing bounds what a hostile file of these would ask for.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from underpar.core.errors import ArtifactError

Coder = Callable[[bytes], bytes]
SHUFFLED = b"BSHF"
GROUPED = b"PGRP"


def pack_bits(codes: NDArray[np.int8], bits: int) -> bytes:
    """Two's-complement codes of `bits` bits as one little-endian stream: code j is bits [bits * j, bits * (j + 1)).

    Source: golf PR #122. An entropy coder after it finds less, because the codes no longer begin at bytes.
    """
    unpacked = (codes.reshape(-1, 1).view(np.uint8) >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(unpacked.reshape(-1), bitorder="little").tobytes()


def unpack_bits(data: bytes, bits: int, count: int) -> NDArray[np.int8]:
    """The `count` codes that `pack_bits` packed."""
    unpacked = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little").reshape(count, bits)
    value = (unpacked.astype(np.int16) << np.arange(bits)).sum(1)
    return np.where(value >= 1 << (bits - 1), value - (1 << bits), value).astype(np.int8)


def shuffle(data: bytes, stride: int = 2) -> bytes:
    """Bytes 0, stride, 2 * stride, ..., then 1, stride + 1, ...: high and low bytes of items apart. Source: golf PR #1736."""
    return SHUFFLED + bytes([stride]) + b"".join(data[start::stride] for start in range(stride))


def unshuffle(blob: bytes) -> bytes:
    """What was shuffled. Raises ArtifactError where the prefix is missing."""
    if blob[:4] != SHUFFLED or len(blob) < 5 or not blob[4]:
        raise ArtifactError(f"not a shuffled stream: it begins with {blob[:5]!r}")
    stride, body = blob[4], blob[5:]
    out, start = bytearray(len(body)), 0
    for phase in range(stride):
        count = len(range(phase, len(body), stride))
        out[phase::stride] = body[start : start + count]
        start += count
    return bytes(out)


def similar_order(codes: NDArray[np.int8]) -> NDArray[np.uint16]:
    """Rows in greedy order from row 0: next is the one nearest in L1 of those left. Cost: rows^2 * cols / 2."""
    left = codes.astype(np.int16)
    names = np.arange(len(codes), dtype=np.uint16)
    order = np.empty(len(codes), np.uint16)
    at = 0
    for step in range(len(codes)):
        order[step], row = names[at], left[at].copy()
        last = len(codes) - step - 1
        left[at], names[at] = left[last], names[last]
        if last:
            at = int(np.abs(left[:last] - row).sum(1, dtype=np.int32).argmin())
    return order


def pack_groups(
    groups: Mapping[str, Sequence[NDArray[np.int8]]], reordered: set[str], coder: Coder, rest: bytes
) -> bytes:
    """Matrices of codes by group, transposed, rows of some groups in similar order, each group coded by itself.

    "PGRP", u32 number of streams, their u32 lengths, the streams: the groups in order, `rest` (anything, coded already), the
    orders as uint16. Source: golf PR #1855, whose coder is the program lrzip.
    """
    streams, orders = [], []
    for name, members in groups.items():
        parts = []
        for codes in members:
            if name in reordered:
                order = similar_order(codes)
                orders.append(order.tobytes())
                parts.append(codes[order].T.tobytes())
            else:
                parts.append(codes.T.tobytes())
        streams.append(coder(b"".join(parts)) if parts else b"")
    streams += [rest, coder(b"".join(orders))]
    return GROUPED + struct.pack(f"<I{len(streams)}I", len(streams), *map(len, streams)) + b"".join(streams)


def unpack_groups(
    blob: bytes, shapes: Mapping[str, Sequence[tuple[int, int]]], reordered: set[str], decoder: Coder
) -> tuple[dict[str, list[NDArray[np.int8]]], bytes]:
    """The groups and the rest that `pack_groups` packed. shapes: of the matrices of each group."""
    if blob[:4] != GROUPED:
        raise ArtifactError(f"not a container of groups: it begins with {blob[:4]!r}")
    count = struct.unpack_from("<I", blob, 4)[0]
    ends = np.cumsum([8 + 4 * count, *struct.unpack_from(f"<{count}I", blob, 8)])
    streams = [blob[a:b] for a, b in pairwise(ends)]
    orders, at = np.frombuffer(decoder(streams[-1]), np.uint16), 0
    found: dict[str, list[NDArray[np.int8]]] = {}
    for stream, (name, members) in zip(streams, shapes.items(), strict=False):
        data, start = np.frombuffer(decoder(stream) if stream else b"", np.int8), 0
        found[name] = []
        for rows, cols in members:
            codes = data[start : start + rows * cols].reshape(cols, rows).T
            start += rows * cols
            if name in reordered:
                codes = codes[np.argsort(orders[at : at + rows])]
                at += rows
            found[name].append(codes)
    return found, streams[-2]
