"""Verification: files and a claim in, a verdict out.

An artifact is measured in a clean process that does not know the claim; a program of somebody else's runs in a jail and is
asked from here. What was measured becomes a case, the checks judge it, and the verdict carries the case as its evidence.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from underpar.core.errors import ArtifactError, DataError
from underpar.core.whole import write_whole
from underpar.data.tokenizers import load_tokenizer
from underpar.referee.candidate import Candidate
from underpar.referee.case import Case
from underpar.referee.checks import run_checks
from underpar.referee.claim import Claim, read_json_object
from underpar.referee.counted_code import CountedCode, examine_code, installed_code
from underpar.referee.jail.streams import Level
from underpar.referee.measure import Job
from underpar.referee.measurement import Event, Measurement, plain, silent
from underpar.referee.plan import Plan
from underpar.referee.probes.overlap import OverlapResult, overlap
from underpar.referee.program import ProgramExamination
from underpar.referee.retokenise import retokenise
from underpar.referee.sandbox import Limits, run_clean
from underpar.referee.submission import ARTIFACT_FILE, Submission, submission_from_run
from underpar.referee.verdict import Verdict

DEFAULT_TOLERANCE = 1e-4
"""Relative difference of a score that is computed again: a twentieth of the smallest gain that counts as a record, and
far above what another number of threads or another batch size does."""
DEFAULT_BUDGET_SECONDS = 60.0
VERDICT_FILE = "verdict.json"
MAX_VERDICT_BYTES = 256 << 20


@dataclass(frozen=True)
class Effort:
    """How much is probed, and with which random texts."""

    seed: int | None = None
    """Of the probes' random texts; None derives it from the files, so that the same files get the same verdict."""
    budget_seconds: float | None = None
    """For the probes; None takes the standard plan of an artifact, or 60 s for a program."""
    plan: Plan | None = None
    """An earlier verdict's plan, to repeat it."""
    tolerance: float = DEFAULT_TOLERANCE
    """Relative, of the re-computed score."""


def verify(
    submission: Submission,
    *,
    device: str = "cpu",
    effort: Effort | None = None,
    limits: Limits | None = None,
    on_event: Event = silent,
) -> Verdict:
    """Measure an artifact in a clean process and judge it.

    Args:
        device: 'cpu' (float32) or 'cuda' (bfloat16).
        on_event: told what the clean process is doing.
    Raises:
        DataError: a file cannot be read. What a submission contains never raises; it is in the verdict.
    Cost: one scoring of the text, and about eight of 8 thousand tokens; 2 s to start.
    """
    limits, effort = limits or Limits(), effort or Effort()
    subject = submission.describe()
    subject["command"] += ("" if device == "cpu" else f" --device {device}") + effort_options(effort)
    seed = seed_of(subject) if effort.seed is None else effort.seed
    code, code_problem = _code(submission.code)
    job = Job(
        artifact=ARTIFACT_FILE,
        tokenizer=submission.tokenizer_name,
        text=submission.text_name,
        seed=seed,
        device=device,
        budget_seconds=effort.budget_seconds,
        plan=effort.plan.to_json() if effort.plan else None,
    )
    outcome = run_clean("underpar.referee.measure", submission.copies(), asdict(job), limits, on_event)
    artifact, found = subject["files"][ARTIFACT_FILE], outcome.result or {}
    here = Measurement(on_event)
    if submission.train:
        stretches = found.get("facts", {}).get("free_run", {}).get("stretches", [])
        here.fact("overlap", lambda: _overlap(submission, stretches))
    case = Case(
        claim=submission.claim,
        limit=submission.limit,
        facts=found.get("facts", {}) | plain(here.facts),
        errors=found.get("errors", {}) | here.errors,
        tolerance=effort.tolerance,
        artifact_sha256=artifact["sha256"],
        container_bytes=artifact["bytes"],
        code=code,
        code_problem=code_problem,
        run_problem=outcome.problem,
        closure=asdict(outcome.level) | {"statement": outcome.level.statement},
    )
    spent = {"wall_seconds": round(outcome.wall_seconds, 2), "seconds": found.get("seconds", {})}
    return judge(case, subject, seed, spent)


def _overlap(submission: Submission, stretches: Sequence[Sequence[int]]) -> OverlapResult:
    """The held-out documents among the training shards. Not in the clean process: no training data is there."""
    if submission.text is None:
        raise DataError("the raw held-out documents are needed to look for them among the training shards")
    tokenizer = load_tokenizer(submission.tokenizer)
    tokens = retokenise(submission.text, tokenizer, lambda done: None).stream.tokens
    return overlap(tokens, tokenizer.bos_id, submission.train, stretches)


def verify_program(candidate: Candidate, *, effort: Effort | None = None, on_event: Event = silent) -> Verdict:
    """Run somebody's program in a jail, probe it and judge it.

    Raises DataError and ConfigError for what the user gave; what the program does never raises, it is in the verdict.
    Cost: the budget, and one scoring of the whole shard where that fits into it.
    """
    effort = effort or Effort()
    tokenizer = load_tokenizer(candidate.tokenizer) if candidate.tokenizer else None
    tokens, subject = candidate.tokens(), candidate.describe()
    subject["command"] += effort_options(effort)
    seed = seed_of(subject) if effort.seed is None else effort.seed
    found = Measurement(on_event)
    examination = ProgramExamination(
        candidate,
        tokens,
        tokenizer,
        seed=seed,
        budget_seconds=effort.budget_seconds or DEFAULT_BUDGET_SECONDS,
        plan=effort.plan,
        found=found,
    )
    began = time.perf_counter()
    examination.run()
    facts = plain(found.facts)
    case = Case(
        claim=_claim(candidate.claim, examination),
        limit=candidate.limit,
        facts=facts,
        errors=plain(found.errors),
        tolerance=effort.tolerance,
        kind=examination.kind,
        closure=facts.pop("closure", asdict(Level()) | {"statement": "the program was not started"}),
    )
    spent = {"wall_seconds": round(time.perf_counter() - began, 2), "seconds": found.seconds}
    return judge(case, subject, seed, spent)


def _claim(given: Claim, examination: ProgramExamination) -> Claim:
    """What is claimed; where nothing is, what the program printed of its own score."""
    printed = examination.printed
    if given.has_score or printed is None:
        return given
    return replace(given, bpb=printed.bpb, loss_nats=printed.loss_nats, tokens=given.tokens or printed.tokens)


def judge(case: Case, subject: Mapping[str, Any], seed: int, spent: Mapping[str, Any]) -> Verdict:
    """Every check on a case. The verdict carries the case as its evidence, so that `replay` derives it again."""
    measured = {"seed": seed, **spent, **case.to_json()}
    return Verdict(run_checks(case), plain(measured), dict(subject))


def replay(path: Path) -> Verdict:
    """Derive a verdict again from the evidence in its file; nothing is measured.

    Raises DataError when the file is damaged, or when what follows from the evidence is not what the file says.
    """
    stored = read_verdict(path)
    try:
        fresh = Verdict(run_checks(Case.from_json(stored.measured)), stored.measured, stored.subject)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as problem:
        raise DataError(f"{path}: the evidence is incomplete or damaged ({problem!r}); verify again") from None
    if fresh.ruling is not stored.ruling:
        raise DataError(f"{path} says '{stored.ruling}', its evidence says '{fresh.ruling}'; verify again")
    said, found = ({c.id: (c.passed, c.mark) for c in one.checks} for one in (stored, fresh))
    wrong = [id for id in said.keys() | found.keys() if said.get(id) != found.get(id)]
    if wrong:
        raise DataError(f"{path}: check {min(wrong)} does not follow from the evidence in it; verify again")
    return fresh


def read_verdict(path: Path) -> Verdict:
    """The verdict in a file. Raises DataError when it is absent, damaged, or its word does not follow from its checks."""
    data = read_json_object(path, MAX_VERDICT_BYTES)
    return Verdict.from_json(data)


def verify_run(run: Path, *, data: Path | None = None, device: str = "cpu", on_event: Event = silent) -> Verdict:
    """Verify a run folder and leave `verdict.json` in it. Raises DataError when a stage's file is missing."""
    verdict = verify(submission_from_run(run, data=data), device=device, on_event=on_event)
    write_verdict(run / VERDICT_FILE, verdict)
    return verdict


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write the verdict, whole or not at all."""
    write_whole(path, json.dumps(verdict.to_json(), indent=1) + "\n")


def effort_options(effort: Effort) -> str:
    """The rest of the command that repeats a verdict."""
    chosen = {"seed": effort.seed, "budget": effort.budget_seconds and f"{effort.budget_seconds:g}s"}
    chosen["tolerance"] = None if effort.tolerance == DEFAULT_TOLERANCE else repr(effort.tolerance)
    return "".join(f" --{name} {value}" for name, value in chosen.items() if value is not None)


def _code(path: Path | None) -> tuple[CountedCode | None, str | None]:
    if path is None:
        return installed_code(), None
    try:
        return examine_code(path), None
    except ArtifactError as problem:
        return None, str(problem)


def seed_of(subject: dict[str, Any]) -> int:
    """From the hashes of all files: nobody can choose it, everybody can repeat it."""
    hashes = sorted(entry["sha256"] for entry in subject["files"].values())
    return int.from_bytes(hashlib.sha256("".join(hashes).encode()).digest()[:4], "little")
