"""What runs inside the clean process: measure an artifact, judge nothing. The claim is not known here.

Every stage leaves its facts as plain JSON data, or the reason why it could not; later stages that need it are skipped.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from underpar.core.errors import DataError
from underpar.referee.measurement import Measurement
from underpar.referee.plan import Abilities, Cost, Plan, make_plan, measure_cost, standard_plan
from underpar.referee.sandbox import JOB, write_result

ADAPTIVE_BUDGET_SECONDS = 60.0
ADAPTIVE_WORLD = 3
"""Processes that what learns is shared by: a number that divides none of its even ones."""
CANARY_TOKENS = 8192
"""Of each canary text, fewer where a window reads tokens many times over."""


@dataclass(frozen=True)
class Job:
    """What to measure, and how much of it."""

    artifact: str
    tokenizer: str
    text: str
    seed: int
    device: str = "cpu"
    budget_seconds: float | None = None
    """For the probes, after scoring; None takes the standard plan."""
    plan: dict[str, Any] | None = None
    """An earlier verdict's plan, to repeat it."""


def announce(doing: str, done: float) -> None:
    """One event for the parent, on stderr."""
    print(json.dumps({"doing": doing, "done": round(done, 4)}), file=sys.stderr, flush=True)


def main(folder_name: str) -> int:
    """Entry of the clean process: read the job, measure, write the result."""
    folder = Path(folder_name)
    job = Job(**json.loads((folder / JOB).read_text(encoding="utf-8")))
    found = Measurement(announce)
    measure(folder, job, found)
    write_result(found.to_json())
    return 0


def measure(folder: Path, job: Job, found: Measurement) -> None:
    """Fill `found`. The order is from cheap to dear; what needs a failed stage is left out."""
    from underpar.data.tokenizers import load_tokenizer
    from underpar.evaluate.load import load_model
    from underpar.evaluate.score import batch_tokens_on
    from underpar.referee.adapted import AdaptedPredictor
    from underpar.referee.ledger import charge
    from underpar.referee.probes.memory import longest_free_run
    from underpar.referee.retokenise import retokenise
    from underpar.referee.windowed import WindowedPredictor

    found.facts["environment"] = _environment(job.device)
    loaded = found.stage("reload", lambda: load_model(folder / job.artifact, job.device))
    if loaded is not None:
        found.facts["reload"] = {
            "sha256": loaded.sha256,
            "parameters": loaded.model.num_parameters(),
            "vocab_size": loaded.model.config.vocab_size,
            "window": str(loaded.window),
            "adaptation": None if loaded.adaptation is None else str(loaded.adaptation),
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
    alphabet, progress = (tokenizer.vocab_size, tokenizer.bos_id), _fraction("score")
    predictor: WindowedPredictor | AdaptedPredictor
    if loaded.adaptation is not None:
        predictor = AdaptedPredictor(loaded.model, loaded.adaptation, *alphabet, job.device, progress)
    else:
        size = batch_tokens_on(job.device)
        predictor = WindowedPredictor(loaded.model, loaded.window, *alphabet, job.device, size, progress)
    scored = found.stage("score", lambda: charge(predictor, held_out))
    if scored is None:
        return
    ledger, charges = scored
    found.facts["score"] = ledger.to_json()
    found.fact("free_run", lambda: longest_free_run(charges, held_out.stream.tokens))
    _probe(replace(predictor, progress=None), held_out.stream.tokens, job, found)


def _probe(predictor: Any, tokens: Any, job: Job, found: Measurement) -> None:
    """Plan the probes and run them."""
    from underpar.referee.examine import run_probes

    plan = Plan.from_json(job.plan) if job.plan else _plan(predictor, tokens, job, found.seconds["score"])
    found.facts["plan"] = plan.to_json()
    run_probes(predictor, tokens, plan, job.seed, found)


def _plan(predictor: Any, tokens: Any, job: Job, score_seconds: float) -> Plan:
    """The standard plan, or the strongest one that fits a budget. Scoring has shown what a token costs.

    What adapts cannot charge a whole vocabulary at once: it is planned for as a program is.
    """
    from underpar.referee.probes.sweep import sweep_prefix_tokens
    from underpar.referee.windowed import WindowedPredictor

    can = Abilities.of(predictor, tokens)
    if not isinstance(predictor, WindowedPredictor):
        budget = job.budget_seconds or ADAPTIVE_BUDGET_SECONDS
        plan = make_plan(budget, measure_cost(predictor, tokens, budget), can)
        return replace(plan, whole_stream=True, world=ADAPTIVE_WORLD if plan.world > 1 else 1)
    context = min(predictor.window.context, len(tokens))
    sweep = sweep_prefix_tokens(predictor.vocab_size, context)
    if job.budget_seconds is None:
        canary = canary_length(predictor.window, CANARY_TOKENS, len(tokens))
        return standard_plan(segment_tokens(predictor.window, len(tokens)), canary, sweep, can)
    plan = make_plan(job.budget_seconds, Cost(1e-3, score_seconds / len(tokens)), can)
    return replace(plan, whole_stream=True, sweep_positions=sweep if plan.sweep_positions else 0)


def segment_tokens(window: Any, available: int) -> int:
    """Tokens that the first few windows of a long stream cover, at most `available`: a seam between two on either side."""
    from itertools import islice

    windows = 3
    spans = islice(window.spans(windows * window.context), windows)
    return min(available, max(span.stop for span in spans) + 1)


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
