"""The record folder: written from run folders after they have been held against each other, and read back.

submission.json          the record in the field's keys
README.md                computed tables, claim, compliance, reproduction
config.json              the resolved configuration of the first seed
environment.json         hardware and versions of the first seed
train_seed<seed>.log     the log of each seed, byte for byte
artifact_seed<seed>.upar the packed model of each seed
verdict_seed<seed>.json  the verdict on each seed
code.tar.xz              the counted source, the same for every seed
"""

import datetime
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underpar.core.errors import RecordError
from underpar.records.agreement import check_agreement
from underpar.records.claim import Claim, Outcome, decide
from underpar.records.compliance import Condition, conditions
from underpar.records.logs import RunLog, read_log
from underpar.records.readme import render_readme
from underpar.records.run import Run, load_runs, read_json
from underpar.records.submission import Credits, build_submission


@dataclass(frozen=True)
class Written:
    """A record that has just been written."""

    folder: Path
    submission: dict[str, Any]
    outcome: Outcome | None
    checks: tuple[Condition, ...]

    @property
    def is_compliant(self) -> bool:
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        failed = [c.key for c in self.checks if not c.passed]
        state = "compliant" if not failed else "NOT compliant: " + ", ".join(failed)
        count = len(self.submission["seeds"])
        return f"{self.folder}: val_bpb {self.submission['val_bpb']:.5f}, {count} seed{'s' * (count != 1)}, {state}"


@dataclass(frozen=True)
class Record:
    """A record folder, read: its submission and its logs by seed."""

    folder: Path
    submission: dict[str, Any]
    logs: dict[int, RunLog]

    @property
    def seed_results(self) -> dict[int, dict[str, Any]]:
        """Seed -> its entry, whichever of the published layouts holds it; {} when the file has one run only."""
        for key in ("seed_results", "seeds"):
            table = self.submission.get(key)
            if isinstance(table, dict):
                return {int(seed): dict(entry) for seed, entry in table.items()}
        scores = self.submission.get("seed_scores")
        if isinstance(scores, list) and isinstance(self.submission.get("seeds"), list):
            return {int(s): {"val_bpb": v} for s, v in zip(self.submission["seeds"], scores, strict=False)}
        return {}

    @property
    def val_bpb(self) -> float | None:
        """The headline score under any of its published names."""
        names = ("val_bpb", "mean_val_bpb", "mean_bpb", "sliding_val_bpb")
        found = (self.submission.get(name) for name in names)
        return next((float(v) for v in found if isinstance(v, int | float)), None)


def write_record(
    run_dirs: Sequence[Path],
    out: Path,
    *,
    author: str,
    github_id: str,
    name: str,
    blurb: str,
    claim: Claim | None = None,
    date: str | None = None,
) -> Written:
    """Write the record folder `out` from runs of one recipe with different seeds.

    Args:
        run_dirs: run folders with every stage up to verify.
        out: a folder that does not exist yet; it appears complete or not at all.
        claim: what is claimed against an earlier result; tested here, and written as not significant unless it passes.
        date: ISO date; today in UTC when None.

    Raises:
        RecordError: missing stages, runs of different configuration or code, a seed twice, equal logs, a log whose
            seed or score is not the run's, an artifact that is not the one listed, or `out` exists.
    """
    if out.exists():
        raise RecordError(f"{out} exists; a record is written once, choose another --out")
    runs = load_runs(run_dirs)
    check_agreement(runs)
    day = date or datetime.datetime.now(datetime.UTC).date().isoformat()
    outcome = decide(claim, runs) if claim else None
    checks = conditions(runs)
    submission = build_submission(runs, Credits(author, github_id, name, blurb, day), outcome, checks)
    out.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        files = _copy_files(runs, half)
        _write_json(half / "submission.json", submission)
        text = render_readme(runs, submission, outcome, checks, files)
        (half / "README.md").write_text(text, encoding="utf-8")
        half.chmod(0o755)
        os.rename(half, out)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return Written(out, submission, outcome, tuple(checks))


def read_record(folder: Path) -> Record:
    """Read a record folder: submission.json and every log whose text or name gives a seed.

    Raises RecordError when submission.json is missing or no JSON, when two logs print the same seed, or when a log
    named for one seed prints another.
    """
    if not (folder / "submission.json").is_file():
        raise RecordError(f"{folder}: no submission.json; point at a record folder")
    submission = read_json(folder / "submission.json")
    logs: dict[int, RunLog] = {}
    for path in sorted((*folder.glob("*.log"), *folder.glob("train*.txt"))):
        log = read_log(path)
        named = re.search(r"seed[_-]?(\d+)", path.stem)
        seed = log.seed if log.seed is not None else int(named[1]) if named else None
        if seed is None:
            continue
        if named and int(named[1]) != seed:
            raise RecordError(f"{path}: named for seed {named[1]}, prints seed {seed}; one of them is wrong")
        if seed in logs:
            raise RecordError(f"{path}: a second log of seed {seed}; each seed needs its own run")
        logs[seed] = log
    return Record(folder, submission, logs)


def _copy_files(runs: Sequence[Run], folder: Path) -> list[tuple[str, str]]:
    """Copy what the runs left, and list (name, what it is) for the README."""
    listed = [("submission.json", "this record in the field's keys"), ("README.md", "this text")]
    for run in runs:
        digest = str(run.require("artifact.json")["sha256"])
        for source, target, what in (
            ("train.log", f"train_seed{run.seed}.log", f"log of seed {run.seed}"),
            ("artifact.upar", f"artifact_seed{run.seed}.upar", f"packed model of seed {run.seed}, sha256 `{digest}`"),
            ("verdict.json", f"verdict_seed{run.seed}.json", f"verdict on seed {run.seed}"),
        ):
            shutil.copyfile(run.require_file(source), folder / target)
            listed.append((target, what))
    first = runs[0]
    for source, what in (
        ("config.json", f"resolved configuration (seed {first.seed}), fingerprint `{first.fingerprint}`"),
        ("environment.json", "hardware and versions"),
        ("code.tar.xz", "the counted source"),
    ):
        shutil.copyfile(first.require_file(source), folder / source)
        listed.append((source, what))
    return listed


def _write_json(path: Path, data: dict[str, Any]) -> None:
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
