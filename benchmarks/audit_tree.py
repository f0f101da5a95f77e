"""Audit a synthetic tree of record folders of both games: 60 folders, 250 MB of logs.

python benchmarks/audit_tree.py --out benchmarks/results/audit_tree.json
"""

import argparse
import json
import math
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from underpar.referee.audit.page import write_page
from underpar.referee.audit.table import render_board
from underpar.referee.audit.tree import audit_tree

SOURCE = "import torch\n" + "".join(f'log0(f"step:{{step}}/{i} val_loss:{{x:.4f}}")\n' for i in range(2_000))
RULE = "=" * 100
TOKENS, TEXT_BYTES = 62_021_632, 151_080_363


def golf_log(seed: int, bpb: float, size: int) -> str:
    """A log of the 16 MB game, filled to `size` bytes with steps and with the progress of test-time training."""
    rng = np.random.default_rng(seed)
    loss = bpb * math.log(2) * TEXT_BYTES / TOKENS
    model, code = 15_800_000 + seed % 1000, len(SOURCE)
    head = [
        SOURCE, RULE, "Running Python 3.12.3", RULE, f"val_loader:shards pattern=fineweb_val_*.bin tokens:{TOKENS}",
        "world_size:8 grad_accum_steps:1", f"seed:{seed}",
    ]  # fmt: skip
    tail = [
        f"step:9000/20000 val_loss:{loss:.4f} val_bpb:{bpb:.4f} train_time:599800ms step_avg:66.64ms",
        "stopping_early: wallclock_cap train_time:599800ms step:9000/20000",
        f"Code size: {code} bytes",
        f"Serialized model int8+zlib: {model} bytes",
        f"Total submission size int8+zlib: {model + code} bytes",
        f"final_int8_zlib_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}",
    ]
    body = [
        f"step:{i}/20000 train_loss:{loss + x:.4f} train_time:{66.64 * i:.0f}ms step_avg:66.64ms"
        for i, x in enumerate(np.abs(rng.normal(0, 0.3, 9_000)), 1)
    ]
    text = "\n".join(head + body) + "\n"
    noise = "ttt_chunk [{}/1238] bpb={:.6f} time={:.1f}s\n"
    rows = max(0, size - len(text)) // len(noise.format(1000, 1.1, 99.9))
    return text + "".join(noise.format(i % 1238, bpb, i / 10) for i in range(rows)) + "\n".join(tail) + "\n"


def speedrun_log(index: int, size: int) -> str:
    """A log of the speedrun of about `size` bytes."""
    rng = np.random.default_rng(index)
    steps, step_ms, loss = size // 62, 60.0 + rng.normal(0, 0.05), 3.2785 + rng.normal(0, 0.0013)
    lines = [SOURCE, RULE, "Running Python 3.12.7", RULE]
    for step in range(1, steps + 1):
        lines.append(f"step:{step}/{steps} train_time:{step * step_ms:.0f}ms step_avg:{step_ms:.2f}ms")
        if step % 250 == 0 or step == steps:
            shown = loss + 1.2 * (1 - step / steps)
            lines.append(
                f"step:{step}/{steps} val_loss:{shown:.4f} train_time:{step * step_ms:.0f}ms step_avg:{step_ms:.2f}ms"
            )
    return "\n".join(lines) + "\n"


def make_tree(root: Path, folders: int, megabytes: float) -> int:
    """Write the tree; returns bytes of logs."""
    size = int(megabytes * 1e6 / folders / 3)
    written = 0
    for number in range(folders):
        golf = number % 4 != 3
        folder = (
            root
            / ("track_10min_16mb" if golf else "track_1_short")
            / f"2026-{4 + number // 28:02d}-{1 + number % 28:02d}_R"
        )
        folder.mkdir(parents=True)
        (folder / "README.md").write_text("# Record\n")
        scores = {}
        for k, seed in enumerate((42, 314, 1337)):
            bpb = round(1.2 - 0.003 * number + 0.0007 * k, 8)
            scores[str(seed)] = {"val_bpb": bpb}
            text = golf_log(seed, bpb, size) if golf else speedrun_log(3 * number + k, size)
            written += (folder / f"train_seed{seed}.log").write_text(text)
        if golf:
            mean = sum(s["val_bpb"] for s in scores.values()) / 3
            (folder / "train_gpt.py").write_text(SOURCE)
            (folder / "submission.json").write_text(json.dumps({"val_bpb": round(mean, 8), "seed_results": scores}))
    return written


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", type=int, default=60)
    parser.add_argument("--megabytes", type=float, default=250.0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        size = make_tree(Path(home) / "records", args.folders, args.megabytes)
        seconds, busy = [], []
        for _ in range(args.repeats):
            began, before = time.perf_counter(), cpu_seconds()
            board = audit_tree(Path(home) / "records", jobs=args.jobs)
            page = write_page(board, Path(home) / "board.html")
            seconds.append(time.perf_counter() - began)
            busy.append(cpu_seconds() - before)
        print(render_board(board))
        used = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        result = {
            "folders": args.folders, "log_bytes": size, "jobs": args.jobs, "seconds": [round(s, 2) for s in seconds],
            "seconds_min": round(min(seconds), 2), "cpu_seconds_min": round(min(busy), 2),
            "megabytes_per_second": round(size / 1e6 / min(seconds), 1),
            "peak_mib": {"parent": round(used[0]), "largest_child": round(used[1])}, "page_bytes": page.stat().st_size,
            "counts": board.counts,
        }  # fmt: skip
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
