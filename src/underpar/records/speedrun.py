"""The record folder of the speedrun: a log a run with its whole source, the baseline timed again, a README that is computed.

README.md               tables, the test, the raw lists, hardware, rule check
result.json             the same figures as data
run_seed<seed>.txt      one log a run
baseline/...            the runs of the baseline on the same machine
"""

import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underpar.core.errors import RecordError
from underpar.records.logs import LogLine, PeakMemory
from underpar.records.run import Run, load_runs, tree_fingerprint
from underpar.records.speedrun_lines import COMPILING, RESETTING, RULE, StepsValidation, TimedStep, TimedValidation
from underpar.records.speedrun_readme import render_readme
from underpar.records.timed import timed_runs
from underpar.stats.target import TimeToTarget, time_to_target

SourceOf = Callable[[Run], str]
"""The source that a run ran, as one text."""


@dataclass(frozen=True)
class Arm:
    """Runs of one recipe, and what they came to."""

    runs: tuple[Run, ...]
    result: TimeToTarget

    @property
    def name(self) -> str:
        return self.runs[0].name

    @property
    def steps(self) -> int:
        return int(self.runs[0].require("train.json")["steps"])


def load_arm(folders: Sequence[Path], target_nats: float) -> Arm:
    """Raises RecordError when the runs are not of one recipe, were edited, or did not end."""
    runs = load_runs(folders)
    for run in runs:
        if tree_fingerprint(run.config["config"]) != run.fingerprint:
            raise RecordError(f"{run.folder / 'config.json'}: the settings do not give its fingerprint; rerun it")
    return Arm(tuple(runs), time_to_target(timed_runs(runs), target_nats))


def write_speedrun(
    out: Path,
    record: Arm,
    baseline: Arm | None,
    *,
    source_of: SourceOf,
    author: str,
    name: str,
    blurb: str,
    counts_steps: bool = False,
    date: str | None = None,
) -> Path:
    """Write the folder `out`, which must not exist yet; it appears complete or not at all. Returns it.

    counts_steps: the log form of the optimiser track. Raises RecordError when `out` exists, or one arm has a seed twice.
    """
    if out.exists():
        raise RecordError(f"{out} exists; a record is written once, choose another place")
    day = date or datetime.datetime.now(datetime.UTC).date().isoformat()
    out.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _write_logs(record, half, source_of, counts_steps)
        if baseline is not None:
            (half / "baseline").mkdir()
            _write_logs(baseline, half / "baseline", source_of, counts_steps)
        result: dict[str, Any] = {"name": name, "author": author, "date": day, "record": record.result.to_json()}
        if baseline is not None:
            result["baseline"] = baseline.result.to_json()
        (half / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        text = render_readme(record, baseline, name=name, author=author, blurb=blurb, date=day)
        (half / "README.md").write_text(text, encoding="utf-8")
        half.chmod(0o755)
        os.rename(half, out)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return out


def _write_logs(arm: Arm, folder: Path, source_of: SourceOf, counts_steps: bool) -> None:
    for run in arm.runs:
        path = folder / f"run_seed{run.seed}.txt"
        if path.exists():
            raise RecordError(
                f"{run.folder}: seed {run.seed} is there twice; a repeat is not a new sample, leave it out"
            )
        path.write_text(render_log(run, source_of(run), counts_steps=counts_steps), encoding="utf-8")


def render_log(run: Run, source: str, *, counts_steps: bool = False) -> str:
    """The log of one run in the published form."""
    environment = run.require("environment.json")
    packages = environment.get("packages") or {}
    parts = [source.rstrip("\n"), RULE, f"Running Python {environment.get('python')}"]
    parts.append(f"Running PyTorch {environment.get('torch')} compiled for CUDA {environment.get('cuda')}")
    if packages.get("triton"):
        parts.append(f"Running Triton version {packages['triton']}")
    table = run.folder / "nvidia-smi.txt"
    parts += [table.read_text(encoding="utf-8").rstrip("\n") if table.is_file() else _hardware(environment), RULE]
    if (run.train or {}).get("paused_seconds"):
        parts += [COMPILING, RESETTING]
    parts += [str(line) for line in _result_lines(run, counts_steps)]
    allocated, reserved = ((run.train or {}).get(f"{key}_memory_bytes") for key in ("peak", "reserved"))
    if allocated is not None:
        parts.append(str(PeakMemory(int(allocated) >> 20, int(reserved or allocated) >> 20)))
    return "\n".join(parts) + "\n"


def _result_lines(run: Run, counts_steps: bool) -> list[LogLine]:
    """Steps and validations in the order in which they happened; the steps that were logged, not all."""
    trained = run.require("train.json")
    total = int(trained["steps"])
    lines: list[LogLine] = []
    for event in sorted((*run.steps, *run.validations), key=lambda e: (e["step"], e["event"] == "validation")):
        step, seconds = int(event["step"]), float(event["train_seconds"])
        average = 1e3 * seconds / max(1, step)
        if event["event"] == "step":
            lines.append(TimedStep(step, total, round(1e3 * seconds), average))
        elif counts_steps:
            lines.append(StepsValidation(step, total, float(event["loss_nats"]), seconds, average))
        else:
            lines.append(TimedValidation(step, total, float(event["loss_nats"]), round(1e3 * seconds), average))
    if not lines or isinstance(lines[-1], TimedStep):
        raise RecordError(f"{run.folder}: train.jsonl does not end with a validation; the run was cut off, rerun it")
    return lines


def _hardware(environment: dict[str, Any]) -> str:
    if environment.get("gpu"):
        return f"{environment.get('gpu_count')} x {environment['gpu']}"
    return f"{environment.get('cpu')}, {environment.get('cores')} cores, no GPU"
