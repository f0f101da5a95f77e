"""Bytes and seconds of every coder on the quantised tensors of one artifact, or of synthetic ones at the shapes of the golf
models (36 M), beside two entropies of the codes: order 0 of each tensor, and order 0 of rows of one scale.

--published adds the containers of golf PRs #1736 and #1855, the latter with Brotli and, where it is installed, with lrzip.

python benchmarks/coding.py runs/quickstart/seed1337/artifact.upar --published
python benchmarks/coding.py --synthetic --out benchmarks/results/coding_synthetic.json
"""

import argparse
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from underpar.compress.codecs import Brotli, Codec, Mixing, Xz, Zlib, Zstd
from underpar.compress.container import read_artifact
from underpar.compress.encoded import Encoded
from underpar.compress.published import pack_groups, shuffle
from underpar.compress.quantise import IntRows, RoundToNearest, SdClip, quantise
from underpar.compress.writer import build_artifact, raw_bytes
from underpar.core.roles import Role
from underpar.lab.files import write_json

CODECS: dict[str, Codec] = {
    "mixing": Mixing(), "brotli": Brotli(), "zstd": Zstd(level=22), "xz": Xz(), "zlib": Zlib()
}  # fmt: skip
SHAPES = {"q": (512, 512), "k": (256, 512), "v": (256, 512), "out": (512, 512), "up": (2048, 512), "down": (512, 2048)}
SPREADS = {"up": (0.3, 0.1), "down": (0.1, 0.4), "embedding": (0.15, 0.1)}
"""Standard deviation of the logarithm of row and column scales; those of a model trained with Muon, the others 0.1 both."""


def synthetic() -> list[Encoded]:
    """Gaussian weights of uneven rows and columns, an embedding of 400 topics, quantised as the late recipes do."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def uneven(values: torch.Tensor, name: str) -> torch.Tensor:
        rows, cols = SPREADS.get(name, (0.1, 0.1))
        return values * (normal(len(values), 1) * rows).exp() * (normal(values.shape[1]) * cols).exp()

    topics = normal(400, 512)[torch.randint(400, (8192,), generator=generator)]
    table = uneven(0.4 * topics + 0.92 * normal(8192, 512), "embedding")
    tensors = {"embedding": (table, Role.EMBEDDING)}
    for layer in range(11):
        for name, shape in SHAPES.items():
            tensors[f"blocks.{layer}.{name}"] = (uneven(normal(*shape), name), Role.MATRIX)
    embedding = IntRows(bits=7, clip=SdClip(sigmas=14.0))
    return quantise(tensors, RoundToNearest(bits=6, clip=SdClip(sigmas=12.85), embedding=embedding))


def entropy_bits(codes: np.ndarray) -> float:
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def order0_bytes(encoded: list[Encoded], steps_per_octave: int = 0) -> float:
    """Codes at the order-0 entropy of their tensor, or of its rows of one scale; every other part as it is."""
    bits = 0.0
    for item in encoded:
        for name, part in item.parts.items():
            if name != "codes":
                bits += 8 * part.numel() * part.element_size()
                continue
            codes = part.reshape(part.shape[0], -1).numpy()
            scale = np.maximum(codes.astype(np.float32).std(1), 0.25)
            classes = np.rint(np.log2(scale) * steps_per_octave).astype(int)
            bits += sum(entropy_bits(codes[classes == label]) for label in np.unique(classes))
    return bits / 8


def lrzip(data: bytes) -> bytes:
    """ZPAQ through the program lrzip, as in golf PR #1855."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "data", Path(folder) / "coded"
        source.write_bytes(data)
        subprocess.run(
            ["lrzip", "-q", "-z", "-L", "9", "-o", str(target), str(source)], check=True, capture_output=True
        )
        return target.read_bytes()


def published(encoded: list[Encoded]) -> Iterator[tuple[str, Callable[[], int]]]:
    """Label and size of the published containers of the same parts; tables of names are left out of both."""
    parts = [(item, name, part) for item in encoded for name, part in item.parts.items()]
    whole = b"".join(raw_bytes(part) for _, _, part in parts)
    rest = brotli(b"".join(raw_bytes(part) for _, name, part in parts if name != "codes"))
    groups: dict[str, list[np.ndarray]] = {}
    for item, name, part in parts:
        if name == "codes":
            kind = item.name.removesuffix(".weight").split(".")[-1]
            groups.setdefault(kind, []).append(part.reshape(part.shape[0], -1).numpy())
    yield "shuffled, brotli", lambda: len(brotli(shuffle(whole)))
    coders = {"groups, brotli": brotli} | ({"groups, lrzip": lrzip} if shutil.which("lrzip") else {})
    for label, coder in coders.items():
        yield label, lambda coder=coder: len(pack_groups(groups, {"embedding", "q", "up"}, coder, rest))


def brotli(data: bytes) -> bytes:
    return Brotli().encode(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, nargs="?")
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=["mixing", "brotli"])
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if (args.artifact is None) is not args.synthetic:
        parser.error("name one artifact, or --synthetic")
    if args.synthetic:
        encoded = synthetic()
    else:
        source = read_artifact(args.artifact)
        encoded = [source.encoded(name) for name in source.names]
    params = sum(item.numel for item in encoded)
    order0, by_row = order0_bytes(encoded), order0_bytes(encoded, steps_per_octave=4)
    print(f"{params:,} parameters; order 0 {math.ceil(order0):,} bytes, by scale of rows {math.ceil(by_row):,}")
    rows: dict[str, dict[str, float]] = {}
    for name in args.codecs:
        began = time.perf_counter()
        data, info = build_artifact({}, encoded, CODECS[name])
        packed = time.perf_counter()
        loaded = read_artifact(data)
        for item in encoded:  # also proves the round trip
            for part, array in loaded.encoded(item.name).parts.items():
                assert torch.equal(array, item.parts[part])
        unpacked = time.perf_counter()
        rows[name] = {
            "bytes": info.container_bytes,
            "pack_seconds": round(packed - began, 2),
            "unpack_seconds": round(unpacked - packed, 2),
        }
        print(f"{name:16} {info.container_bytes:12,} bytes, {info.container_bytes / order0 - 1:+.2%} of order 0, "
              f"packed in {packed - began:.1f} s, unpacked in {unpacked - packed:.1f} s", flush=True)  # fmt: skip
    for label, size in published(encoded) if args.published else ():
        began = time.perf_counter()
        rows[label] = {"bytes": size(), "pack_seconds": round(time.perf_counter() - began, 2)}
        print(f"{label:16} {rows[label]['bytes']:12,} bytes, {rows[label]['bytes'] / order0 - 1:+.2%} of order 0, "
              f"packed in {rows[label]['pack_seconds']:.1f} s", flush=True)  # fmt: skip
    if args.out:
        result = {"params": params, "order0_bytes": round(order0), "order0_by_row_scale_bytes": round(by_row)}
        write_json(args.out, result | {"codecs": rows})


if __name__ == "__main__":
    main()
