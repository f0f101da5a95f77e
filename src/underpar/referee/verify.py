"""Verification: files and a claim in, a verdict out. The measuring happens in a clean process, the judging here.

The process that measures does not know the claim; the process that judges never opens the artifact.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from underpar.core.errors import ArtifactError
from underpar.referee.case import Case
from underpar.referee.checks import run_checks
from underpar.referee.counted_code import CountedCode, examine_code, installed_code
from underpar.referee.measure import Job
from underpar.referee.sandbox import Event, Limits, Outcome, private_folder, run_clean
from underpar.referee.submission import ARTIFACT_FILE, Submission, submission_from_run
from underpar.referee.verdict import Verdict

DEFAULT_TOLERANCE = 1e-4
"""Relative difference of a score that is computed again: a twentieth of the smallest gain that counts as a record, and
far above what another number of threads or another batch size does."""
VERDICT_FILE = "verdict.json"


def silent(doing: str, done: float) -> None:
    """Progress for nobody."""


def verify(
    submission: Submission,
    *,
    device: str = "cpu",
    seed: int | None = None,
    limits: Limits | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    on_event: Event = silent,
) -> Verdict:
    """Measure a submission in a clean process and judge it.

    Args:
        device: 'cpu' (float32) or 'cuda' (bfloat16).
        seed: of the probes' random texts; None derives it from the files, so that the same files get the same verdict.
        tolerance: relative, of the re-computed score.
        on_event: told what the clean process is doing.
    Raises:
        DataError: a file cannot be read. What a submission contains never raises; it is in the verdict.
    Cost: one scoring of the text, and about six of 8 thousand tokens; 2 s to start.
    """
    limits = limits or Limits()
    subject = submission.describe()
    subject["command"] += _options(device, seed, tolerance)
    seed = _seed_of(subject) if seed is None else seed
    code, code_problem = _code(submission.code)
    with private_folder(submission.copies()) as folder:
        job = Job(
            artifact=ARTIFACT_FILE,
            tokenizer=submission.tokenizer_name,
            text=submission.text_name,
            seed=seed,
            device=device,
            memory_bytes=limits.memory_bytes if device == "cpu" else None,
            cpu_seconds=int(limits.seconds * (os.cpu_count() or 1)) + 1,
        )
        outcome = run_clean("underpar.referee.measure", folder, asdict(job), limits, on_event)
    case = _case(submission, subject, outcome, code, code_problem, tolerance)
    measured = {
        "seed": seed,
        "wall_seconds": round(outcome.wall_seconds, 2),
        "facts": dict(case.facts),
        "errors": dict(case.errors),
        "seconds": (outcome.result or {}).get("seconds", {}),
        "problem": outcome.problem,
    }
    subject |= {"claim": submission.claim.to_json(), "tolerance": tolerance, "device": device}
    return Verdict(run_checks(case), measured, subject)


def verify_run(run: Path, *, data: Path | None = None, device: str = "cpu", on_event: Event = silent) -> Verdict:
    """Verify a run folder and leave `verdict.json` in it. Raises DataError when a stage's file is missing."""
    verdict = verify(submission_from_run(run, data=data), device=device, on_event=on_event)
    write_verdict(run / VERDICT_FILE, verdict)
    return verdict


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write the verdict, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(verdict.to_json(), indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def _options(device: str, seed: int | None, tolerance: float) -> str:
    """The rest of the command that repeats a verdict."""
    chosen = {"device": None if device == "cpu" else device, "seed": seed}
    chosen["tolerance"] = None if tolerance == DEFAULT_TOLERANCE else repr(tolerance)
    return "".join(f" --{name} {value}" for name, value in chosen.items() if value is not None)


def _code(path: Path | None) -> tuple[CountedCode | None, str | None]:
    if path is None:
        return installed_code(), None
    try:
        return examine_code(path), None
    except ArtifactError as problem:
        return None, str(problem)


def _case(
    submission: Submission,
    subject: dict[str, Any],
    outcome: Outcome,
    code: CountedCode | None,
    code_problem: str | None,
    tolerance: float,
) -> Case:
    artifact = subject["files"][ARTIFACT_FILE]
    found = outcome.result or {}
    return Case(
        claim=submission.claim,
        limit=submission.limit,
        artifact_sha256=artifact["sha256"],
        container_bytes=artifact["bytes"],
        code=code,
        facts=found.get("facts", {}),
        errors=found.get("errors", {}),
        tolerance=tolerance,
        code_problem=code_problem,
        run_problem=outcome.problem,
    )


def _seed_of(subject: dict[str, Any]) -> int:
    """From the hashes of all files: nobody can choose it, everybody can repeat it."""
    hashes = sorted(entry["sha256"] for entry in subject["files"].values())
    return int.from_bytes(hashlib.sha256("".join(hashes).encode()).digest()[:4], "little")
