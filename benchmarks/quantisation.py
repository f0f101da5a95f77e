"""What quantisation costs a trained model: bytes and held-out loss under several quantisers; water-filling at given bytes; and
calibration on text of the model's own.

python benchmarks/quantisation.py runs/quickstart/seed1337 --out benchmarks/results/quantisation.json
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from underpar.compress.codecs import Mixing
from underpar.compress.container import read_artifact
from underpar.compress.lowrank import AsymmetricLowRank
from underpar.compress.pack import pack
from underpar.compress.precision import Float16, Gptq, IntRows
from underpar.compress.quantise import Hessian, Quantiser, SdClip
from underpar.compress.rounding import Nearest
from underpar.compress.rules import ByRule, Rule
from underpar.compress.solver import Waterfill
from underpar.core.config import from_dict
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import load_validation
from underpar.evaluate.score import score
from underpar.evaluate.windows import Flat
from underpar.lab.calibrate import calibrate
from underpar.lab.files import RunFolder, read_json, write_json
from underpar.nn.module import parameter_roles
from underpar.recipes import Recipe
from underpar.train.calibration import CalibrationText, GeneratedText, Subject, TrainingText
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
GENERATED = {
    "temperature 1": GeneratedText(),
    "temperature 1, another seed": GeneratedText(seed=1),
    "temperature 0.8": GeneratedText(temperature=0.8),
    "temperature 1, documents of 32": GeneratedText(document_tokens=32),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--calibration-tokens", type=int, default=32_768)
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
    loader = config.data.loader

    def calibrated(text: CalibrationText) -> tuple[dict[str, Hessian], float]:
        model.load_state_dict(weights)
        subject = Subject(model, data, loader, bos_id, config.data.tokenizer.vocab_size)
        return calibrate(subject, text, args.calibration_tokens)

    def bits_per_byte(changed: dict[str, Tensor]) -> float:
        model.load_state_dict(weights | changed)
        return score(model, stream, Flat(context=loader.seq_len), bos_id=bos_id, batch_tokens=2048).bpb

    exact = bits_per_byte({})
    print(f"{sum(t.numel() for t in weights.values()):,} parameters, {exact:.4f} bits per byte unquantised")
    rows: dict[str, dict[str, float]] = {}
    hessians, seconds = calibrated(TrainingText())
    calibration_seconds = {"training text": seconds}

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
        label = f"water-filling, {share:.0%} of GPTQ's bytes"
        measure(label, Waterfill(), hessians, int(share * sizes[2]))
        measure(f"{label}, without a trellis", Waterfill(rounding=Nearest()), hessians, int(share * sizes[2]))
    measure("water-filling without derivatives", Waterfill(), bare, sizes[2])
    for label, text in GENERATED.items():
        own, calibration_seconds[label] = calibrated(text.frozen())
        measure(f"GPTQ on generated text, {label}", QUANTISERS["GPTQ, published clips"], own)
        measure(f"water-filling on generated text, {label}", Waterfill(), own, sizes[2])
    print(f"seconds of calibration: {calibration_seconds}")
    if args.out:
        found = {"recipe": described["recipe"], "bpb": exact, "calibration_tokens": args.calibration_tokens}
        write_json(args.out, found | {"calibration_seconds": calibration_seconds, "quantisers": rows})


if __name__ == "__main__":
    main()
