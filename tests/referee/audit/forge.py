"""Record folders made by code: honest ones of every form, and the means to change one thing in them."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

Files = dict[str, bytes]
"""Name -> content: a folder before it is written."""

SCRIPT = (Path(__file__).parent / "honest_train.py").read_text(encoding="utf-8")
RULE = "=" * 100


@dataclass(frozen=True)
class SeedRun:
    """One run of a record of the 16 MB game; the published figures of three of them are below."""

    seed: int
    bpb: float
    steps: int
    stop_ms: int
    model_bytes: int
    eval_ms: int
    tokens: int = 62_021_632
    text_bytes: int = 151_080_363

    @property
    def loss(self) -> float:
        return self.bpb * math.log(2) * self.text_bytes / self.tokens


EARLY = (
    SeedRun(1337, 1.20143417, 8394, 599_921, 15_820_684, 2107),
    SeedRun(1338, 1.19945102, 9092, 599_890, 15_835_395, 2235),
    SeedRun(1339, 1.20319508, 8508, 599_899, 15_839_491, 2098),
)
"""The published figures of openai/parameter-golf's record of rows of 4,096 tokens."""

LATE = tuple(
    replace(run, tokens=47_851_520, text_bytes=151_074_499)
    for run in (
        SeedRun(42, 1.06610085, 4854, 596_180, 15_950_809, 396_900),
        SeedRun(0, 1.06473025, 4843, 596_170, 15_943_451, 399_300),
        SeedRun(1234, 1.06562743, 4847, 596_080, 15_947_025, 395_500),
    )
)
"""The published figures of #1736."""


def early_log(run: SeedRun, script: str = SCRIPT) -> str:
    """The form of the first weeks: the script, a rule, the machine, a rule, and lines without spaces."""
    code = len(script.encode())
    step_ms = run.stop_ms / run.steps
    lines = [
        script,
        RULE,
        "Running Python 3.12.3",
        "Running PyTorch 2.8.0+cu128",
        "| 0  NVIDIA H100 80GB HBM3  On |",
        RULE,
    ]
    lines += [
        f"val_loader:shards pattern=./data/datasets/fineweb10B_sp1024/fineweb_val_*.bin tokens:{run.tokens}",
        "train_loader:dataset:fineweb10B_sp1024 train_shards:80",
        "model_params:17059912",
        "world_size:8 grad_accum_steps:1",
        "train_batch_tokens:393216 train_seq_len:4096 iterations:20000 warmup_steps:20 max_wallclock_seconds:600.000",
        f"seed:{run.seed}",
    ]
    ratio = run.bpb / run.loss
    for step in range(0, run.steps, 1000):
        loss = 6.9 * math.exp(-step / 900) + run.loss
        lines.append(_early_validation(step, loss, loss * ratio, step * step_ms, step_ms))
        at = step + 200
        lines.append(f"step:{at}/20000 train_loss:{loss:.4f} train_time:{at * step_ms:.0f}ms step_avg:{step_ms:.2f}ms")
    lines += [
        _early_validation(run.steps, run.loss - 0.003, (run.loss - 0.003) * ratio, run.stop_ms, step_ms),
        f"stopping_early: wallclock_cap train_time:{run.stop_ms}ms step:{run.steps}/20000",
        "peak memory allocated: 7748 MiB reserved: 8070 MiB",
        "Serialized model: 67224983 bytes",
        f"Code size: {code} bytes",
        f"Total submission size: {67224983 + code} bytes",
        f"Serialized model int8+zlib: {run.model_bytes} bytes (payload:17178912 raw_torch:17224025 payload_ratio:3.91x)",
        f"Total submission size int8+zlib: {run.model_bytes + code} bytes",
        f"final_int8_zlib_roundtrip val_loss:{run.loss:.4f} val_bpb:{run.bpb:.4f} eval_time:{run.eval_ms}ms",
        f"final_int8_zlib_roundtrip_exact val_loss:{run.loss:.8f} val_bpb:{run.bpb:.8f}",
    ]
    return "\n".join(lines) + "\n"


def _early_validation(step: int, loss: float, bpb: float, clock: float, step_ms: float) -> str:
    shown = f"val_loss:{loss:.4f} val_bpb:{bpb:.4f}"
    return f"step:{step}/20000 {shown} train_time:{clock:.0f}ms step_avg:{step_ms if step else 0.01:.2f}ms"


def late_log(run: SeedRun, code_bytes: int = 28_025) -> str:
    """The form of the last weeks: settings first, spaces behind colons, phased adaptation at the end."""
    ratio = run.bpb / run.loss
    minutes = run.stop_ms / 60_000
    lines = [
        "Hyperparameters:",
        "  datasets_dir: ./data/datasets/fineweb10B_sp8192_lossless_caps_caseops_v1_reserved",
        "  gptq_reserve_seconds: 4.0",
        "  max_wallclock_seconds: 600.0",
        f"  seed: {run.seed}",
        "  train_batch_tokens: 786432",
        "  world_size: 8",
        "train_shards: 80",
        f"val_tokens: {run.tokens}",
        "model_params:35944536",
        "gptq:reserving 4s, effective=596000ms",
        f"0/20000 val_loss: {9.0077:.4f} val_bpb: {9.0077 * ratio:.4f}",
        "1/20000 train_loss: 9.0090 train_time: 0.0m tok/s: 12535509",
    ]
    for step in range(500, run.steps, 500):
        at = minutes * step / run.steps
        lines.append(f"{step}/20000 train_loss: {2.2 + 300 / step:.4f} train_time: {at:.1f}m tok/s: 6400000")
    diagnostic, quantised = run.loss + 0.0065, run.loss + 0.027
    lines += [
        f"{run.steps}/20000 val_loss: {run.loss + 0.008:.4f} val_bpb: {(run.loss + 0.008) * ratio:.4f}",
        f"stopping_early: wallclock_cap train_time: {run.stop_ms}ms step: {run.steps}/20000",
        "peak memory allocated: 40032 MiB reserved: 40040 MiB",
        _pair("diagnostic pre-quantization post-ema", diagnostic, ratio) + " eval_time:6754ms",
        "Serialized model: 135409136 bytes",
        "Code size (uncompressed): 137528 bytes",
        f"Code size (compressed): {code_bytes} bytes",
        "GPTQ:collecting Hessians from calibration data...",
        "GPTQ:collected 67 Hessians in 3.5s",
        f"Serialized model quantized+brotli: {run.model_bytes} bytes",
        f"Total submission size quantized+brotli: {run.model_bytes + code_bytes} bytes",
        _pair("diagnostic quantized", quantised, ratio) + " eval_time:10245ms",
        "ttt_phased: total_docs:50000 prefix_docs:2000 suffix_docs:48000 num_phases:3 boundaries:[666, 1333, 2000]",
        "ttp: b776/782 bl:2.2616 bb:1.0723 rl:2.2616 rb:1.0723 dl:7534-8350 gd:0",
        _pair("quantized_ttt_phased", run.loss, ratio) + f" eval_time:{run.eval_ms}ms",
        f"total_eval_time:{run.eval_ms / 1000:.1f}s",
    ]
    return "\n".join(lines) + "\n"


def _pair(label: str, loss: float, ratio: float) -> str:
    return f"{label} val_loss:{loss:.8f} val_bpb:{loss * ratio:.8f}"


def early_folder(runs: tuple[SeedRun, ...] = EARLY, script: str = SCRIPT) -> Files:
    """A flat submission.json of the first run, with further logs for the test of significance."""
    first, code = runs[0], len(script.encode())
    submission = {
        "author": "A. Author", "github_id": "author", "name": "Rows of 4,096", "blurb": "Longer rows.",
        "date": "2026-03-19T04:50:00Z", "val_loss": round(first.loss, 8), "val_bpb": first.bpb,
        "bytes_total": first.model_bytes + code, "bytes_code": code,
    }  # fmt: skip
    files = {f"train_seed{run.seed}.log": early_log(run, script).encode() for run in runs}
    return files | {
        "README.md": f"# Rows of 4,096\n\nval_bpb: {first.bpb:.5f}\n".encode(),
        "submission.json": dump(submission),
        "train_gpt.py": script.encode(),
    }


def late_folder(runs: tuple[SeedRun, ...] = LATE, script: str = SCRIPT) -> Files:
    """Per-seed results, means and sample deviations, as the last records have them."""
    bpbs = [run.bpb for run in runs]
    mean = sum(bpbs) / len(bpbs)
    sd = math.sqrt(sum((b - mean) ** 2 for b in bpbs) / (len(bpbs) - 1)) if len(bpbs) > 1 else None
    code = len(script.encode())
    results = {
        str(run.seed): {
            "val_bpb": run.bpb, "val_loss": round(run.loss, 8), "artifact_bytes": run.model_bytes + code,
            "steps": run.steps, "train_time_s": run.stop_ms / 1000, "ttt_eval_time_s": run.eval_ms / 1000,
        }
        for run in runs
    }  # fmt: skip
    submission = {
        "author": "B. Author", "github_id": "author", "name": "Gates and phases", "date": "2026-04-19",
        "track": "10min_16mb", "val_bpb": round(mean, 5), "val_bpb_std": None if sd is None else round(sd, 5),
        "seeds": [run.seed for run in runs], "seed_results": results,
        "artifact_bytes_max": max(run.model_bytes for run in runs) + code, "hardware": "8xH100 80GB SXM",
        "compliance": {"train_under_600s": True, "three_seeds": True},
    }  # fmt: skip
    files = {f"train_seed{run.seed}.log": late_log(run, code).encode() for run in runs}
    return files | {
        "README.md": f"# Gates and phases\n\n**val_bpb: {mean:.5f}** ({len(runs)}-seed mean)\n".encode(),
        "submission.json": dump(submission),
        "train_gpt.py": script.encode(),
    }


SPEEDRUN_SOURCE = """import os
import torch

@dataclass
class Hyperparameters:
    train_files: str = "data/fineweb10B/fineweb_train_*.bin"
    val_tokens: int = 10485760
    num_iterations: int = 2225

model = torch.compile(model, dynamic=False, fullgraph=True)
print0(f"step:{step}/{train_steps} val_loss:{val_loss:.4f} train_time:{training_time_ms:.0f}ms")
"""


def speedrun_log(loss: float, seconds: float, steps: int = 2225, source: str = SPEEDRUN_SOURCE) -> str:
    """The form of the speedrun: source, rule, machine, rule, steps, the memory."""
    step_ms = 1000 * seconds / steps
    lines = [source, RULE, "Running Python 3.12.7", "Running PyTorch 2.10.0 compiled for CUDA 12.6"]
    lines += ["|   0  NVIDIA H100 80GB HBM3          On  |", RULE]
    for step in range(0, steps, 250):
        shown = 10.8 * math.exp(-step / 120) + loss + 0.9 * (1 - step / steps)
        lines.append(_speedrun_validation(step, steps, shown, step_ms))
        lines += [
            f"step:{i}/{steps} train_time:{i * step_ms:.0f}ms step_avg:{step_ms:.2f}ms" for i in (step + 1, step + 2)
        ]
    lines += [_speedrun_validation(steps, steps, loss, step_ms), "peak memory allocated: 30650 MiB reserved: 48050 MiB"]
    return "\n".join(lines) + "\n"


def _speedrun_validation(step: int, steps: int, loss: float, step_ms: float) -> str:
    return f"step:{step}/{steps} val_loss:{loss:.4f} train_time:{step * step_ms:.0f}ms step_avg:{step_ms:.2f}ms"


SPEEDRUN = (
    (3.2779, 93.034), (3.2788, 93.036), (3.2791, 93.193), (3.2752, 93.071), (3.2752, 93.480), (3.2784, 92.932),
    (3.2779, 92.781), (3.2784, 93.245), (3.2777, 92.866), (3.2780, 93.388), (3.2804, 93.676), (3.2806, 93.319),
    (3.2786, 93.780), (3.2777, 93.188), (3.2776, 93.871),
)  # fmt: skip
"""Loss and seconds of the fifteen runs of modded-nanogpt #224."""


def speedrun_folder(runs: tuple[tuple[float, float], ...] = SPEEDRUN) -> Files:
    files = {f"{index:08x}-run.txt": speedrun_log(*run).encode() for index, run in enumerate(runs)}
    return files | {"README.md": b"# Faster\n\nMean 3.2781 over 15 runs.\n"}


# --------------------------------------------------------------------------------------------- changes


def dump(data: Any) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()


def change(files: Files, name: str, old: str, new: str, count: int = 0) -> None:
    """Replace text in a file; the text has to be there. `count` 0: everywhere."""
    text = files[name].decode()
    assert old in text, f"{old!r} is not in {name}"
    files[name] = text.replace(old, new, count or -1).encode()


def edit_json(files: Files, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the submission."""
    data = json.loads(files["submission.json"])
    edit(data)
    files["submission.json"] = dump(data)


def write(files: Files, folder: Path) -> Path:
    """Write a folder and return it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


RECORD_TRACK = "track_10min_16mb"
SPEEDRUN_TRACK = "track_1_short"
