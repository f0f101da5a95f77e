"""What quantisation costs a trained model: bytes and held-out loss under several quantisers; water-filling at given bytes.

python benchmarks/quantisation.py runs/quickstart/seed1337 --out benchmarks/results/quantisation.json
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from underpar.compress.codecs import Mixing
from underpar.compress.container import read_artifact
from underpar.compress.lowrank import AsymmetricLowRank
from underpar.compress.pack import pack
from underpar.compress.precision import Float16, Gptq, IntRows
from underpar.compress.quantise import Hessian, Quantiser, SdClip
from underpar.compress.rules import ByRule, Rule
from underpar.compress.solver import Waterfill
from underpar.core.config import from_dict
from underpar.data.context import row_context
from underpar.data.shards import open_shard, shard_files
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import load_validation
from underpar.evaluate.score import score
from underpar.evaluate.windows import Flat
from underpar.lab.files import RunFolder, read_json, write_json
from underpar.model.gpt import GPT
from underpar.nn.frame import Visit
from underpar.nn.module import parameter_roles
from underpar.recipes import Recipe
from underpar.train.checkpoint import complete_checkpoints, load_checkpoint
from underpar.train.weights import final_weights

SMALL = Rule(at_most_elements=4096, precision=Float16())
EMBEDDING = Rule(role="embedding", precision=Gptq(bits=7, clip=SdClip(sigmas=14.0)))
LATE = (
    SMALL,
    EMBEDDING,
    Rule(component="mlp", precision=Gptq(clip=SdClip(sigmas=11.5))),
    Rule(precision=Gptq(clip=SdClip(sigmas=13.0))),
)
QUANTISERS: dict[str, Quantiser] = {
    "rounding, 8 bits": ByRule(rules=(SMALL, Rule(precision=IntRows())), gain=Float16()),
    "rounding, 6 bits, 12.85 sigmas": ByRule(
        rules=(SMALL, Rule(precision=IntRows(bits=6, clip=SdClip()))), gain=Float16()
    ),
    "GPTQ, published clips": ByRule(rules=LATE, gain=Float16()),
    "... and low-rank correction": ByRule(rules=LATE, gain=Float16(), correction=AsymmetricLowRank()),
}
SHARES = (1.0, 0.8, 0.65)
"""Bytes that water-filling gets, of those that GPTQ with the published clips takes."""


class Recorder:
    """Sums what every linear layer reads and what the loss's derivative by its outputs is."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, str], list[Tensor]] = {}
        self.tokens = 0

    def at(self, execution: int, layer: int) -> Visit:
        return _Recording(self, layer)

    def head(self) -> Visit:
        return _Recording(self, -1)


class _Recording(Visit):
    needs_hidden = True

    def __init__(self, recorder: Recorder, layer: int) -> None:
        self.recorder, self.layer = recorder, layer

    def __call__(self, site: str, x: Tensor, y: Tensor) -> Tensor:
        if site in ("attention", "mlp"):
            return y
        inputs = x.detach().flatten(0, -2).float()
        sums = self.recorder.seen.setdefault(
            (self.layer, site), [torch.zeros(inputs.shape[1], inputs.shape[1]), torch.zeros(y.shape[-1])]
        )
        sums[0] += inputs.T @ inputs
        y.register_hook(lambda gradient: _add_squares(sums[1], gradient))
        return y


def _add_squares(total: Tensor, gradient: Tensor) -> None:
    total += gradient.detach().flatten(0, -2).float().square().sum(0)


def calibrate(model: GPT, tokens: np.ndarray, bos_id: int, *, rows: int, row_tokens: int) -> dict[str, Hessian]:
    """Hessians of every matrix by its name, from rows of training text drawn at random."""
    recorder, generator = Recorder(), np.random.default_rng(0)
    for start in range(0, rows, 8):
        places = generator.integers(0, len(tokens) - row_tokens - 1, min(8, rows - start))
        batch = torch.from_numpy(np.stack([tokens[p : p + row_tokens + 1] for p in places]).astype(np.int64))
        inputs = batch[:, :-1]
        model(inputs, batch[:, 1:], row_context(inputs, bos_id), visitor=recorder).sum().backward()
    found = {}
    for name, _ in model.named_parameters():
        parts = name.split(".")
        place = (
            (-1, "head")
            if parts[0] in ("embedding", "head")
            else (int(parts[1]), parts[-2])
            if parts[0] == "blocks"
            else None
        )
        if place in recorder.seen:
            gram, squares = recorder.seen[place]
            found[name] = Hessian(gram, rows * row_tokens, squares)
    model.zero_grad(set_to_none=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--calibration-rows", type=int, default=128)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    folder = RunFolder(args.run)
    described = read_json(folder.config, "underpar train")
    config, data = from_dict(described["config"], Recipe), Path(described["data"])
    weights, _ = final_weights(load_checkpoint(complete_checkpoints(folder.checkpoints)[-1]), config.averaging)
    model = config.model.build().eval()
    model.load_state_dict(weights)
    roles = parameter_roles(model)
    tensors = {name: (tensor, roles[name]) for name, tensor in weights.items()}
    bos_id, stream = load_tokenizer(data).bos_id, load_validation(data)
    row_tokens = config.data.loader.seq_len
    train = np.asarray(open_shard(shard_files(data, "train")[0]))
    hessians = calibrate(model, train, bos_id, rows=args.calibration_rows, row_tokens=row_tokens)

    def bits_per_byte(changed: dict[str, Tensor]) -> float:
        model.load_state_dict(weights | changed)
        return score(model, stream, Flat(context=row_tokens), bos_id=bos_id, batch_tokens=2048).bpb

    exact = bits_per_byte({})
    print(f"{sum(t.numel() for t in weights.values()):,} parameters, {exact:.4f} bits per byte unquantised")
    rows: dict[str, dict[str, float]] = {}

    def measure(label: str, quantiser: Quantiser, seen: dict[str, Hessian], budget_bytes: int | None = None) -> int:
        with TemporaryDirectory() as scratch:
            out = Path(scratch) / "model.upar"
            result = pack(
                tensors, {}, quantiser=quantiser, codec=Mixing(), out_path=out, hessians=seen, budget_bytes=budget_bytes
            )
            loss = bits_per_byte(read_artifact(out).tensors()) - exact
        rows[label] = {"bytes": result.container_bytes, "bpb_added": loss}
        print(f"| {label} | {result.container_bytes:,} | {loss:+.5f} |", flush=True)
        return result.container_bytes

    sizes = [measure(label, quantiser, hessians) for label, quantiser in QUANTISERS.items()]
    bare = {name: Hessian(hessian.gram, hessian.tokens) for name, hessian in hessians.items()}
    for share in SHARES:
        measure(f"water-filling, {share:.0%} of GPTQ's bytes", Waterfill(), hessians, int(share * sizes[2]))
    measure("water-filling without derivatives", Waterfill(), bare, sizes[2])
    if args.out:
        write_json(args.out, {"recipe": described["recipe"], "bpb": exact, "quantisers": rows})


if __name__ == "__main__":
    main()
