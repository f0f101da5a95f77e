"""Run folders as the stages write them, with realistic curves, made without training."""

import io
import json
import lzma
import math
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from underpar.records import logs
from underpar.records.run import sha256_of, tree_fingerprint

FakeRun = Callable[..., Path]

TOKENS, TEXT_BYTES = 62_021_632, 151_080_192
SEQ4096 = {
    1337: {"bpb": 1.20143417, "loss": 2.02857127, "steps": 8394, "seconds": 599.921, "container": 15_820_684},
    1338: {"bpb": 1.19945102, "loss": 2.02522281, "steps": 9092, "seconds": 599.890, "container": 15_835_395},
    1339: {"bpb": 1.20319508, "loss": 2.03154449, "steps": 8508, "seconds": 599.899, "container": 15_839_491},
}
"""The published figures of the three runs of golf/seq4096."""


@pytest.fixture
def fake_run(tmp_path: Path) -> FakeRun:
    """make(seed, bpb=..., steps=...) -> folder of a complete run under tmp_path/runs."""

    def make(seed: int = 1337, **settings: Any) -> Path:
        return make_run(tmp_path / "runs" / f"seed{seed}", seed, **settings)

    return make


@pytest.fixture
def seq4096_runs(fake_run: FakeRun) -> list[Path]:
    """Three runs that carry the published scores of golf/seq4096."""
    return [fake_run(seed, **row, points=60) for seed, row in SEQ4096.items()]


def make_run(
    folder: Path,
    seed: int,
    *,
    bpb: float = 1.2,
    loss: float | None = None,
    steps: int = 1200,
    seconds: float = 108.4,
    container: int = 9_000,
    points: int | None = None,
    recipe: str = "golf/seq4096",
    model_dim: int = 512,
    code: str = "print('counted')\n",
    budget: dict[str, Any] | None = None,
    documents: int = 800,
) -> Path:
    """Write one run. `points` step events are written (all steps when None); `container` is a size in bytes, sparse."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    loss = bpb * TEXT_BYTES * math.log(2) / TOKENS if loss is None else loss
    bits, text_bytes = loss * TOKENS / math.log(2), round(loss * TOKENS / math.log(2) / bpb)
    limits = {"type": "Budget", "train_seconds": 600.0, "eval_seconds": 600.0, "artifact_bytes": 16_000_000}
    tree = {
        "type": "Recipe",
        "seed": seed,
        "budget": limits | (budget or {}),
        "model": {"type": "Gpt", "num_layers": 9, "model_dim": model_dim, "num_heads": 8},
        "data": {"type": "Data", "seq_len": 4096},
    }
    _dump(folder / "config.json", _config(recipe, seed, tree))
    _dump(folder / "environment.json", _environment())
    _write_source(folder / "code.tar.xz", code)
    with (folder / "artifact.upar").open("wb") as stream:
        stream.write(f"artifact of seed {seed}".encode())
        stream.truncate(container)
    _dump(folder / "artifact.json", _artifact(folder, container))
    _write_training(folder, rng, seed, steps, seconds, points or steps, loss, bpb)
    score = {
        "bits": bits,
        "bytes": text_bytes,
        "tokens": TOKENS,
        "documents": documents,
        "bpb": bpb,
        "loss_nats": loss,
        "window": "Flat(context=4096)",
        "eval_seconds": 2.107,
        "tokens_per_second": TOKENS / 2.107,
        "lossless": True,
        "tokenizer": {"kind": "sentencepiece", "vocab_size": 1024},
        "world_size": 8,
        "artifact_sha256": sha256_of(folder / "artifact.upar"),
    }
    _dump(folder / "score.json", score)
    _write_documents(folder / "documents.npz", rng, documents, bpb)
    _dump(folder / "baselines.json", _baselines(text_bytes))
    _dump(folder / "verdict.json", _verdict())
    return folder


def _dump(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")


def _config(recipe: str, seed: int, tree: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "track": "golf-record",
        "lineage": ["golf/baseline", "golf/longcontext2048", recipe],
        "parent": "golf/longcontext2048",
        "overrides": [],
        "fingerprint": tree_fingerprint(tree),
        "seed": seed,
        "config": tree,
        "diff": [
            {"path": "data.seq_len", "old": "2048", "new": "4096"},
            {"path": "optim.matrix.momentum", "old": "0.95", "new": "0.99"},
            {"path": "model.transforms", "old": None, "new": "Smear(scale=0.1 | learned)"},
        ],
        "summary": "Rows of 4,096 tokens with a longer momentum memory.",
        "command": f"underpar run {recipe} --track golf-record --seed {seed}",
    }


def _environment() -> dict[str, Any]:
    return {
        "python": "3.11.7",
        "torch": "2.13.0+cu130",
        "cuda": "13.0",
        "gpu": "NVIDIA H100 80GB HBM3",
        "gpu_count": 8,
        "cpu": "Intel Xeon Platinum 8480C",
        "cores": 104,
        "platform": "Linux-6.8-x86_64",
        "host_memory_bytes": 1_000_000_000_000,
        "packages": {"numpy": "2.3.1", "sentencepiece": "0.2.3"},
        "underpar": "0.1.0",
        "commit": "9e8462e",
        "attention_backend": "flash-attn-4",
    }


def _write_source(path: Path, code: str) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        member = tarfile.TarInfo("underpar/score.py")
        member.size = len(code.encode())
        archive.addfile(member, io.BytesIO(code.encode()))
    path.write_bytes(lzma.compress(plain.getvalue()))


def _artifact(folder: Path, container: int) -> dict[str, Any]:
    code_bytes = 47_642
    tensors = [{"name": "embed.weight", "role": "embedding", "shape": [1024, 512], "params": 524_288}]
    for layer in range(9):
        for part, shape in (
            ("attn.q", [512, 512]),
            ("attn.kv", [512, 512]),
            ("attn.proj", [512, 512]),
            ("mlp.up", [1024, 512]),
            ("mlp.down", [512, 1024]),
        ):
            size = shape[0] * shape[1]
            tensors.append({"name": f"blocks.{layer}.{part}.weight", "role": "matrix", "shape": shape, "params": size})
        tensors.append({"name": f"blocks.{layer}.scales", "role": "gain", "shape": [2048], "params": 2048})
    total = sum(t["params"] for t in tensors)
    for tensor in tensors:
        tensor["payload_bytes"] = tensor["params"] + 1024
        tensor["coded_bytes"] = int(container * 0.999 * tensor["params"] / total)
    roles = sorted({t["role"] for t in tensors})
    keys = ("params", "payload_bytes", "coded_bytes")
    by_role = {r: {k: sum(t[k] for t in tensors if t["role"] == r) for k in keys} for r in roles}
    return {
        "artifact_bytes": container + code_bytes,
        "container_bytes": container,
        "code_bytes": code_bytes,
        "payload_bytes": sum(t["payload_bytes"] for t in tensors),
        "sha256": sha256_of(folder / "artifact.upar"),
        "budget_bytes": 16_000_000,
        "codec": "Zlib(level=9)",
        "quantiser": "Int8PerRow",
        "by_role": by_role,
        "by_tensor": tensors,
        "pack_seconds": 2.4,
    }


def _write_training(
    folder: Path, rng: np.random.Generator, seed: int, steps: int, seconds: float, points: int, loss: float, bpb: float
) -> None:
    total, per_step = 20_000, seconds / steps
    events: list[dict[str, Any]] = [
        {"event": "start", "params": 17_059_912, "world_size": 8, "batch_tokens": 393_216, "seq_len": 4096}
    ]
    lines: list[logs.LogLine] = [
        logs.ModelParams(17_059_912),
        logs.WorldSize(8, 1),
        logs.BatchShape(393_216, 4096, total, 20, 600.0),
        logs.Seed(seed),
    ]
    for step in sorted({1, *np.linspace(1, steps, points).astype(int).tolist()}):
        done = step / steps
        value = loss + 4.9 * math.exp(-done * 55) + 0.75 * (1 - done) ** 1.6 + rng.normal(0, 0.045)
        clock = step * per_step
        events.append(
            {
                "event": "step",
                "step": step,
                "loss_nats": value,
                "tokens": step * 393_216,
                "train_seconds": clock,
                "step_ms": per_step * 1000,
                "lr_scale": min(1.0, (1 - done) / 0.3),
                "momentum": min(0.99, 0.92 + 0.07 * min(1.0, step / (0.12 * steps))),
            }
        )
        lines.append(logs.TrainStep(step, total, value, round(clock * 1000), clock * 1000 / step))
    for done in (0.2, 0.4, 0.6, 0.8, 1.0):
        step = int(steps * done)
        value = loss + 0.75 * (1 - done) ** 1.6 - 0.004
        scaled = value * bpb / loss
        events.append(
            {
                "event": "validation",
                "step": step,
                "loss_nats": value,
                "bpb": scaled,
                "train_seconds": step * per_step,
            }
        )
        lines.append(logs.Validation(step, total, value, scaled, round(step * per_step * 1000), per_step * 1000))
    events.append({"event": "stop", "reason": "train_seconds", "step": steps, "train_seconds": seconds})
    lines += [
        logs.StopAtCap(round(seconds * 1000), steps, total),
        logs.FinalRoundtrip("int8_zlib", loss, bpb, 2107),
        logs.FinalRoundtripExact("int8_zlib", loss, bpb),
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events), encoding="utf-8")
    (folder / "train.log").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    _dump(
        folder / "train.json",
        {
            "steps": steps,
            "tokens": steps * 393_216,
            "train_seconds": seconds,
            "params": 17_059_912,
            "step_ms_median": per_step * 1000,
            "tokens_per_second": 393_216 / per_step,
            "peak_memory_bytes": 8_124_000_000,
            "stop_reason": "train_seconds",
            "final_loss_nats": loss,
            "world_size": 8,
            "paused_seconds": {"validation": 7.2, "checkpoint": 1.1},
        },
    )
    _dump(folder / "trace.json", {"lr_scale": [[1, 1.0], [int(steps * 0.7), 0.99]], "seq_len": [[1, 4096]]})


def _write_documents(path: Path, rng: np.random.Generator, documents: int, bpb: float) -> None:
    sizes = rng.lognormal(7.6, 0.9, documents).astype(np.int64) + 40
    bits = sizes * np.maximum(0.2, rng.normal(bpb, 0.22, documents) + 40 / np.sqrt(sizes) * 0.1)
    np.savez(path, bits=bits, bytes=sizes, tokens=np.maximum(1, sizes // 2))


def _baselines(text_bytes: int) -> dict[str, Any]:
    rows = (("gzip -9", 3.05), ("xz -9e", 2.42), ("zstd -19", 2.46), ("brotli -11", 2.36))
    compressors = [{"name": n, "bytes": int(text_bytes * b / 8), "bpb": b, "seconds": 9.0} for n, b in rows]
    return {"text_bytes": text_bytes, "compressors": compressors}


def _verdict() -> dict[str, Any]:
    checks = [
        ("size", "Artifact within its byte budget", True, "O", "15,868,326 bytes counted of 16,000,000"),
        ("reload", "Artifact loads in a clean process", True, "O", "loaded, 17,059,912 parameters"),
        ("rescore", "Score is reproduced", True, "O", "1.20143417 against 1.20143417"),
        ("bytes", "Bytes add up", True, "O", "151,080,192 bytes scored, as many in the text"),
        ("canary", "Random text is not compressed", None, "C", "not run on this machine <here>"),
    ]
    rows = [{"id": i, "title": t, "passed": p, "mark": m, "evidence": {}, "statement": s} for i, t, p, m, s in checks]
    return {"verdict": "valid", "checks": rows}
