"""The list of conditions that a record meets or fails, computed from its numbers and never claimed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from underpar.core.units import BITS_PER_NAT, GOLF_ARTIFACT_BYTES, format_seconds
from underpar.records.run import Run

_STEP_OVERSHOOT_SECONDS = 1.0
"""The loop looks at its clock between steps; published runs end up to 0.14 s late. More than this is no overshoot."""

_INVARIANT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Condition:
    """One condition. `key` is its name in submission.json, `statement` what was measured against which limit."""

    key: str
    passed: bool
    statement: str


def conditions(runs: Sequence[Run]) -> list[Condition]:
    """Every condition that these runs can be held to. Limits that a track does not set are not listed.

    Expects runs whose train, artifact, score and verdict files are present.
    """
    budget = runs[0].budget
    found = [_artifact(runs)]
    if budget.get("train_seconds"):
        found.append(_train_seconds(runs, float(budget["train_seconds"])))
    if budget.get("train_steps"):
        steps = max(int(r.require("train.json")["steps"]) for r in runs)
        limit = int(budget["train_steps"])
        found.append(
            Condition("train_steps_within_budget", steps <= limit, f"{steps:,} steps at most, limit {limit:,}")
        )
    if budget.get("train_tokens"):
        found.append(_train_tokens(runs, int(budget["train_tokens"])))
    if budget.get("eval_seconds"):
        found.append(_eval_seconds(runs, float(budget["eval_seconds"])))
    return [*found, _scored_artifact(runs), _byte_invariant(runs), _lossless(runs), _verdict(runs), _seeds(runs)]


def _artifact(runs: Sequence[Run]) -> Condition:
    limit = int(runs[0].budget.get("artifact_bytes") or runs[0].require("artifact.json").get("budget_bytes") or 0)
    limit = limit or GOLF_ARTIFACT_BYTES
    largest = max(int(r.require("artifact.json")["artifact_bytes"]) for r in runs)
    key = "artifact_under_16mb" if limit == GOLF_ARTIFACT_BYTES else "artifact_within_budget"
    room = f"{limit - largest:,} to spare" if largest <= limit else f"{largest - limit:,} over"
    statement = f"largest artifact {largest:,} B, code included; limit {limit:,} B ({room})"
    return Condition(key, largest <= limit, statement)


def _train_seconds(runs: Sequence[Run], limit: float) -> Condition:
    longest = max(runs, key=_trained_seconds)
    seconds = _trained_seconds(longest)
    grace = min(_STEP_OVERSHOOT_SECONDS, float(longest.require("train.json")["step_ms_median"]) / 1000 * 2)
    calibration = _calibration_seconds(longest)
    including = f", {calibration:.1f} s of calibration included" if calibration else ""
    statement = f"longest training {seconds:.3f} s{including}, limit {limit:g} s"
    if seconds > limit:
        statement += f" (over by {seconds - limit:.3f} s; the step in flight may take {grace:.3f} s)"
    return Condition(f"train_under_{limit:g}s", seconds <= limit + grace, statement)


def _trained_seconds(run: Run) -> float:
    """What a run spent on training text: its steps, and the calibration after them."""
    return float(run.require("train.json")["train_seconds"]) + _calibration_seconds(run)


def _calibration_seconds(run: Run) -> float:
    return float(run.require("artifact.json").get("calibration_seconds") or 0.0)


def _train_tokens(runs: Sequence[Run], limit: int) -> Condition:
    most = max(int(r.require("train.json")["tokens"]) for r in runs)
    return Condition("train_tokens_within_budget", most <= limit, f"{most:,} training tokens at most, limit {limit:,}")


def _eval_seconds(runs: Sequence[Run], limit: float) -> Condition:
    seconds = max(float(r.require("score.json")["eval_seconds"]) for r in runs)
    statement = f"longest evaluation {format_seconds(seconds)}, limit {limit:g} s"
    return Condition(f"eval_under_{limit:g}s", seconds <= limit, statement)


def _scored_artifact(runs: Sequence[Run]) -> Condition:
    other = [
        r.label for r in runs if r.require("score.json").get("artifact_sha256") != r.require("artifact.json")["sha256"]
    ]
    statement = "every score was measured on the packed file whose sha256 is listed"
    if other:
        statement = f"{', '.join(other)}: the scored file is not the packed file"
    return Condition("score_from_artifact", not other, statement)


def _byte_invariant(runs: Sequence[Run]) -> Condition:
    """tokens x loss / (ln 2 x bpb) must give back the bytes of the text, the same for every seed."""
    sizes, worst = set(), 0.0
    for run in runs:
        score = run.require("score.json")
        sizes.add(int(score["bytes"]))
        implied = float(score["tokens"]) * float(score["loss_nats"]) * BITS_PER_NAT / float(score["bpb"])
        worst = max(worst, abs(implied / int(score["bytes"]) - 1)) if math.isfinite(implied) else math.inf
    counts = " and ".join(f"{s:,}" for s in sorted(sizes))
    passed = worst <= _INVARIANT_TOLERANCE and len(sizes) == 1
    return Condition(
        "byte_accounting", passed, f"tokens, loss and bpb imply the {counts} B of the text within {worst:.1e}"
    )


def _lossless(runs: Sequence[Run]) -> Condition:
    lossless = all(bool(r.require("score.json").get("lossless")) for r in runs)
    words = "the text can be recovered exactly from its tokens"
    return Condition("lossless_tokenizer", lossless, words if lossless else "the tokenizer alters the text (lossy)")


def _verdict(runs: Sequence[Run]) -> Condition:
    verdicts = {r.label: str(r.require("verdict.json")["verdict"]) for r in runs}
    passed = set(verdicts.values()) == {"valid"}
    statement = "every run verified as valid in a clean process"
    if not passed:
        statement = ", ".join(f"{label}: {verdict}" for label, verdict in verdicts.items())
    return Condition("verified", passed, statement)


def _seeds(runs: Sequence[Run]) -> Condition:
    seeds = ", ".join(str(r.seed) for r in runs)
    return Condition("three_seeds", len(runs) >= 3, f"{len(runs)} seed{'s' * (len(runs) != 1)}: {seeds}")
