"""Bytes of one trained model under every quantiser and codec, beside the order-0 entropy of its codes.

python benchmarks/codecs.py runs/quickstart/seed1337 --out benchmarks/results/codecs.json
"""

import argparse
import json
from pathlib import Path

import numpy as np

from underpar.compress.codecs import Brotli, Codec, Mixing, Xz, Zlib, Zstd
from underpar.compress.encoded import Encoded
from underpar.compress.quantise import Int8PerRow, Quantiser, RoundToNearest, SdClip, quantise
from underpar.compress.writer import build_artifact
from underpar.core.config import from_dict
from underpar.lab.files import RunFolder, read_json, write_json
from underpar.model.cost import on_meta
from underpar.nn.module import parameter_roles
from underpar.recipes import Recipe
from underpar.train.checkpoint import complete_checkpoints, load_checkpoint
from underpar.train.weights import final_weights

QUANTISERS: dict[str, Quantiser] = {
    "Int8PerRow": Int8PerRow(),
    "RoundToNearest(bits=8)": RoundToNearest(bits=8),
    "RoundToNearest(bits=6)": RoundToNearest(bits=6),
    "RoundToNearest(bits=6, clip=SdClip(sigmas=12.85))": RoundToNearest(bits=6, clip=SdClip(sigmas=12.85)),
}
CODECS: dict[str, Codec] = {
    "zlib": Zlib(), "zstd -22": Zstd(level=22), "xz -9e": Xz(), "brotli -11": Brotli(), "mixing": Mixing()
}  # fmt: skip


def order0_bytes(encoded: list[Encoded]) -> int:
    """Every tensor's codes at their own order-0 entropy, all other parts as they are."""
    bits = 0.0
    for item in encoded:
        for name, part in item.parts.items():
            if name != "codes":
                bits += 8 * part.numel() * part.element_size()
                continue
            counts = np.unique(part.numpy(), return_counts=True)[1]
            bits += float(-(counts * np.log2(counts / counts.sum())).sum())
    return round(bits / 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    folder = RunFolder(args.run)
    config = from_dict(read_json(folder.config, "underpar train")["config"], Recipe)
    weights, _ = final_weights(load_checkpoint(complete_checkpoints(folder.checkpoints)[-1]), config.averaging)
    roles = parameter_roles(on_meta(config.model))
    rows = {}
    for name, quantiser in QUANTISERS.items():
        encoded = quantise({key: (tensor, roles[key]) for key, tensor in weights.items()}, quantiser)
        rows[name] = {"order-0": order0_bytes(encoded)}
        rows[name] |= {label: len(build_artifact({}, encoded, codec)[0]) for label, codec in CODECS.items()}
        print(f"| `{name}` | " + " | ".join(f"{count:,}" for count in rows[name].values()) + " |")
    if args.out:
        params = sum(tensor.numel() for tensor in weights.values())
        write_json(args.out, {"run": json.loads(folder.config.read_text())["recipe"], "params": params, "bytes": rows})


if __name__ == "__main__":
    main()
