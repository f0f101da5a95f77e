"""What runs inside the clean process: measure everything, judge nothing. The claim is not known here.

Every stage leaves its facts as plain JSON data, or the reason why it could not; later stages that need it are skipped.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from underpar.core.errors import DataError, UnderparError
from underpar.referee.confine import confine
from underpar.referee.sandbox import JOB, write_result


@dataclass(frozen=True)
class Job:
    """What to measure, and how much of it."""

    artifact: str
    tokenizer: str
    text: str
    seed: int
    device: str = "cpu"
    memory_bytes: int | None = None
    cpu_seconds: int = 7200
    canary_tokens: int = 8192
    """Tokens of each canary text, fewer where a window reads tokens many times over."""
    flip_trials: int = 6


@dataclass
class Measurement:
    """Facts by stage, and the stages that failed."""

    facts: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """Run one stage; its value, or None when it failed."""
        announce(name, 0.0)
        began = time.perf_counter()
        try:
            return work()
        except (UnderparError, MemoryError, RuntimeError, OSError) as problem:
            # A hostile file may break torch in ways that are no error of ours. It is the finding, with its kind.
            text = str(problem).strip().partition("\n")[0] or "no message"
            self.errors[name] = {"kind": type(problem).__name__, "message": text[:1000]}
            return None
        finally:
            self.seconds[name] = round(time.perf_counter() - began, 3)

    def to_json(self) -> dict[str, Any]:
        return {"facts": self.facts, "errors": self.errors, "seconds": self.seconds}


def announce(doing: str, done: float) -> None:
    """One event for the parent, on stderr."""
    print(json.dumps({"doing": doing, "done": round(done, 4)}), file=sys.stderr, flush=True)


def main(folder_name: str) -> int:
    """Entry of the clean process: read the job, confine, measure, write the result."""
    folder = Path(folder_name)
    job = Job(**json.loads((folder / JOB).read_text(encoding="utf-8")))
    confinement = confine(memory_bytes=job.memory_bytes, cpu_seconds=job.cpu_seconds)
    found = Measurement()
    found.facts["confinement"] = confinement.to_json()
    measure(folder, job, found)
    write_result(folder, found.to_json())
    return 0


def measure(folder: Path, job: Job, found: Measurement) -> None:
    """Fill `found`. The order is from cheap to dear; what needs a failed stage is left out."""
    from underpar.data.tokenizers import load_tokenizer
    from underpar.evaluate.load import load_model
    from underpar.referee.ledger import charge
    from underpar.referee.predictor import BATCH_TOKENS, WindowedPredictor
    from underpar.referee.retokenise import retokenise

    found.facts["environment"] = _environment(job.device)
    loaded = found.stage("reload", lambda: load_model(folder / job.artifact, job.device))
    if loaded is not None:
        found.facts["reload"] = {
            "sha256": loaded.sha256,
            "parameters": loaded.model.num_parameters(),
            "vocab_size": loaded.model.config.vocab_size,
            "window": str(loaded.window),
            "tokenizer": loaded.tokenizer_identity,
        }
    tokenizer = found.stage("tokenizer", lambda: load_tokenizer(folder / job.tokenizer))
    if tokenizer is None:
        return
    found.facts["tokenizer"] = dict(tokenizer.identity)
    held_out = found.stage("text", lambda: retokenise(_text_path(folder, job), tokenizer, _documents))
    if held_out is None:
        return
    found.facts["text"] = held_out.to_json()
    if loaded is None or loaded.model.config.vocab_size != tokenizer.vocab_size:
        return
    predictor = WindowedPredictor(
        loaded.model,
        loaded.window,
        tokenizer.vocab_size,
        tokenizer.bos_id,
        job.device,
        BATCH_TOKENS[job.device],
        _fraction("score"),
    )
    ledger = found.stage("score", lambda: charge(predictor, held_out))
    if ledger is None:
        return
    found.facts["score"] = ledger.to_json()
    _probe(predictor, held_out.stream.tokens, job, found)


def _probe(predictor: Any, tokens: Any, job: Job, found: Measurement) -> None:
    """The canaries, the flip and the sweep, on a bounded part of the stream."""
    import numpy as np

    from underpar.referee.canary import frequency_canary, uniform_canary
    from underpar.referee.probes import flip_segment_tokens, future_flip, sweep_prefix_tokens, target_sweep

    predictor = replace(predictor, progress=None)
    layout = tokens[: canary_length(predictor.window, job.canary_tokens, len(tokens))]
    counts = np.bincount(tokens, minlength=predictor.vocab_size)
    bos = predictor.bos_id
    canaries = {
        "canary_uniform": lambda: uniform_canary(layout, predictor.vocab_size, bos, job.seed),
        "canary_frequency": lambda: frequency_canary(layout, counts, bos, job.seed + 1),
    }
    for name, draw in canaries.items():
        result = found.stage(name, partial(_canary, predictor, draw))
        if result is not None:
            found.facts[name] = result.to_json()
    segment = tokens[: flip_segment_tokens(predictor.window, len(tokens))]
    flip = found.stage("flip", lambda: future_flip(predictor, segment, job.seed + 2, job.flip_trials))
    if flip is not None:
        found.facts["flip"] = flip.to_json()
    prefix = tokens[: sweep_prefix_tokens(predictor.vocab_size, min(predictor.window.context, len(tokens)))]
    sweep = found.stage("sweep", lambda: target_sweep(predictor, prefix))
    if sweep is not None:
        found.facts["sweep"] = sweep.to_json()


def _canary(predictor: Any, draw: Callable[[], Any]) -> Any:
    from underpar.referee.canary import run_canary

    return run_canary(predictor, draw())


def canary_length(window: Any, wanted: int, available: int) -> int:
    """Tokens of a canary text: at most `wanted`, and no more than four times that many positions of forward passes."""
    sample = max(4 * window.context, 4096)
    passes = sum(span.stop - span.start for span in window.spans(sample)) / sample
    return min(available, wanted + 1, max(2 * window.context, round(4 * wanted / passes)) + 1)


def _text_path(folder: Path, job: Job) -> Path:
    if not job.text:
        raise DataError("the raw held-out documents; tokens alone do not show which text they stand for")
    return folder / job.text


def _documents(count: int) -> None:
    if count % 500 == 0:
        announce(f"text: {count:,} documents", 0.0)


def _fraction(stage: str) -> Callable[[float], None]:
    """Progress of a stage, told at most every 2 s."""
    last = [time.perf_counter()]

    def tell(done: float) -> None:
        if time.perf_counter() - last[0] >= 2:
            last[0] = time.perf_counter()
            announce(stage, done)

    return tell


def _environment(device: str) -> dict[str, Any]:
    import torch

    import underpar

    return {
        "underpar": underpar.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
        "device_name": torch.cuda.get_device_name() if device != "cpu" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "dtype": "float32" if device == "cpu" else "bfloat16",
    }
