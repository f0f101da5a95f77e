"""submission.json: the record in the field's keys, every value computed from the run folders."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from underpar.records.claim import Outcome
from underpar.records.compliance import Condition
from underpar.records.run import Run, tree_fingerprint, without_seed
from underpar.stats import sample_sd


@dataclass(frozen=True)
class Credits:
    """Who submits, and under which name. `date` is an ISO date, UTC."""

    author: str
    github_id: str
    name: str
    blurb: str
    date: str


def build_submission(
    runs: Sequence[Run], credits: Credits, outcome: Outcome | None, checks: Sequence[Condition]
) -> dict[str, Any]:
    """The object of submission.json. Standard deviations are sample values (n - 1), null for one run."""
    results = {str(run.seed): seed_result(run) for run in runs}
    columns = {key: [r[key] for r in results.values()] for key in next(iter(results.values()))}
    first = runs[0]
    submission: dict[str, Any] = {
        "author": credits.author,
        "github_id": credits.github_id,
        "name": credits.name,
        "blurb": credits.blurb,
        "date": credits.date,
        "track": first.config.get("track"),
        "val_bpb": statistics.fmean(columns["val_bpb"]),
        "val_bpb_std": sample_sd(columns["val_bpb"]) if len(runs) > 1 else None,
        "val_loss": statistics.fmean(columns["val_loss"]),
        "val_loss_std": sample_sd(columns["val_loss"]) if len(runs) > 1 else None,
        "seeds": [run.seed for run in runs],
        "seed_results": results,
        "bytes_total": max(columns["artifact_bytes"]),
        "bytes_code": max(int(run.require("artifact.json")["code_bytes"]) for run in runs),
        "artifact_bytes_mean": round(statistics.fmean(columns["artifact_bytes"])),
        "artifact_bytes_max": max(columns["artifact_bytes"]),
        "train_time_s_mean": statistics.fmean(columns["train_time_s"]),
        "eval_time_s_mean": statistics.fmean(columns["eval_time_s"]),
        "train_steps_mean": statistics.fmean(columns["steps"]),
        "step_avg_ms_mean": statistics.fmean(columns["step_avg_ms"]),
        "hardware": hardware(first),
        "pytorch_version": first.require("environment.json").get("torch"),
        "cuda_version": first.require("environment.json").get("cuda"),
        "technique_summary": first.config.get("summary", ""),
        "reproducibility_notes": reproduction_command(first),
        "compliance": {check.key: check.passed for check in checks},
    }
    if outcome is not None:
        submission |= _test_keys(outcome)
    return submission | {
        "recipe": first.name,
        "lineage": first.config.get("lineage", []),
        "fingerprint": tree_fingerprint(without_seed(first.config["config"], first.seed)),
        "underpar_version": first.require("environment.json").get("underpar"),
        "commit": first.require("environment.json").get("commit"),
    }


def seed_result(run: Run) -> dict[str, Any]:
    """The per-seed entry: scores, bytes, steps and clocks."""
    train, artifact, score = (run.require(f"{stage}.json") for stage in ("train", "artifact", "score"))
    return {
        "val_bpb": float(score["bpb"]),
        "val_loss": float(score["loss_nats"]),
        "artifact_bytes": int(artifact["artifact_bytes"]),
        "artifact_sha256": str(artifact["sha256"]),
        "fingerprint": run.fingerprint,
        "steps": int(train["steps"]),
        "train_tokens": int(train["tokens"]),
        "train_time_s": float(train["train_seconds"]),
        "eval_time_s": float(score["eval_seconds"]),
        "step_avg_ms": round(1000 * float(train["train_seconds"]) / max(1, int(train["steps"])), 3),
        "verdict": str(run.require("verdict.json")["verdict"]),
    }


def hardware(run: Run) -> str:
    """'8x NVIDIA H100 80GB HBM3' or '2 cores of AMD EPYC (no GPU)'."""
    environment = run.require("environment.json")
    if environment.get("gpu"):  # the processes of the run, not the devices of the host
        return f"{run.require('train.json')['world_size']}x {environment['gpu']}"
    return f"{environment.get('cores')} cores of {environment.get('cpu') or 'an unnamed CPU'} (no GPU)"


def reproduction_command(run: Run) -> str:
    """The exact command line of one run, as it was recorded."""
    return str(run.config.get("command") or f"underpar run {run.name} --seed {run.seed}")


def _test_keys(outcome: Outcome) -> dict[str, Any]:
    """`t_statistic` is positive when the mean lies below the threshold, as published tables print it."""
    test = outcome.test
    defined = test is not None and math.isfinite(test.statistic)
    return {
        "comparison_metric": outcome.claim.metric,
        "comparison_threshold": outcome.claim.threshold,
        "comparison_reference": outcome.claim.reference,
        "comparison_test": "one-sided one-sample t-test",
        "comparison_alpha": outcome.claim.alpha,
        "t_statistic": -test.statistic if test is not None and defined else None,
        "p_value": test.p_value if test is not None and defined else None,
        "significant": outcome.significant,
    }
