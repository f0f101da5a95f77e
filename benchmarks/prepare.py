"""Measure preparation: MB of text per second and core, stage by stage, and the whole job on all cores.

    python benchmarks/prepare.py train-00.jsonl.xz --val val.jsonl.xz --tokenizer sp1024 caseops.model \
        --out benchmarks/results/prepare.json

Stages are timed in CPU seconds of one process on a part of the text, so that a busy machine disturbs them little; the whole
job in seconds of the wall, with the load of the machine beside it.
"""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from underpar.data.caseops import encode_caseops
from underpar.data.corpora import stream_documents, stream_records
from underpar.data.encoding import batches, encode_batch
from underpar.data.prepare import SeparateFiles, prepare
from underpar.data.tokenizer_base import Tokenizer
from underpar.data.tokenizers import load_tokenizer, parse_tokenizer
from underpar.data.workers import available_cores

STAGE_DOCUMENTS = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+", type=Path)
    parser.add_argument("--val", nargs="+", type=Path, required=True)
    parser.add_argument("--tokenizer", nargs="+", default=["sp1024"], help="names to train, or .model files")
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    result: dict[str, Any] = {
        "command": " ".join([Path(sys.argv[0]).name, *(Path(a).name for a in sys.argv[1:])]),
        "cpu": cpu_name(),
        "cores": available_cores(),
        "read_mb_per_cpu_second": round(reading_speed(args.inputs), 1),
        "tokenizers": {Path(name).name: measure(name, args) for name in args.tokenizer},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Stages on one core, then the whole job."""
    tokenizer = build(name, args.inputs)
    return {"name": tokenizer.name} | stages(tokenizer, args.inputs) | whole_job(tokenizer, args)


def build(name: str, inputs: list[Path]) -> Tokenizer:
    if name.endswith(".model"):
        return load_tokenizer(name)
    return parse_tokenizer(name).build(document.text for document in stream_documents(inputs))


def stages(tokenizer: Tokenizer, inputs: list[Path]) -> dict[str, float]:
    """MB of original text per CPU second of one core."""
    records = list(islice(stream_records(inputs), STAGE_DOCUMENTS))
    texts = [record.document().text for record in records]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    steps: dict[str, Callable[[], object]] = {
        "caseops_transform": lambda: [encode_caseops(text) for text in texts],
        "ids": lambda: [tokenizer.encode_ids(text) for text in texts],
        "ids_and_bytes": lambda: [tokenizer.encode(text) for text in texts],
        "train_batches": lambda: [encode_batch(tokenizer, batch, with_text=False) for batch in batches(records)],
        "val_batches": lambda: [encode_batch(tokenizer, batch, with_text=True) for batch in batches(records)],
    }
    return {f"{step}_mb_per_cpu_second": round(megabytes / cpu_seconds(call), 2) for step, call in steps.items()}


def whole_job(tokenizer: Tokenizer, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        load_before, began = os.getloadavg()[0], time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        manifest = prepare(
            args.inputs, tokenizer, Path(scratch) / "set", val=SeparateFiles(tuple(args.val)), workers=args.workers
        )
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text_bytes = sum(counts.text_bytes or 0 for counts in manifest.splits.values())
    return {
        "workers": args.workers,
        "text_bytes": text_bytes,
        "tokens": sum(counts.tokens for counts in manifest.splits.values()),
        "wall_seconds": round(seconds, 1),
        "mb_per_wall_second": round(text_bytes / 1e6 / seconds, 2),
        "worker_cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "load_average_before": round(load_before, 1),
    }


def reading_speed(inputs: list[Path]) -> float:
    """MB of raw text per CPU second of decompression alone, which one process does for all workers."""
    size = 0

    def read() -> None:
        nonlocal size
        for record in islice(stream_records(inputs), STAGE_DOCUMENTS * 5):
            size += len(record.data)

    return 1 / (cpu_seconds(read) / (size / 1e6))


def cpu_seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
