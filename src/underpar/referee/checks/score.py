"""Coverage, the score itself, and the time that it took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from underpar.referee import rules
from underpar.referee.case import Case, Kind, NotMeasured
from underpar.referee.checks.registry import PRECISION_TOLERANCE, Finding, check, compare_exactly
from underpar.referee.claim import half_unit


@check("coverage.ledger", "every token of every document is charged exactly once", rules.SINGLE_PASS, Kind.ARTIFACT)
def coverage_ledger(case: Case) -> Finding:
    if "score" in case.errors and case.errors["score"]["kind"] == "ScoreError":
        return Finding(False, f"scoring stopped: {case.errors['score']['message']}", dict(case.errors["score"]))
    score, text = case.fact("score"), case.fact("text")
    whole = score["tokens"] == text["stream_tokens"] - 1 and score["documents"] == text["documents"]
    whole = whole and score["uncharged_documents"] == 0
    statement = (
        f"{score['tokens']:,} charges for {text['stream_tokens']:,} tokens (the first one has nothing before it) in "
        f"{score['documents']:,} documents, each finite, not negative and counted once"
    )
    evidence = {key: score[key] for key in ("tokens", "documents", "uncharged_documents", "largest_charge_nats")}
    return Finding(whole, statement, evidence | {"stream_tokens": text["stream_tokens"]})


@check("coverage.claim", "tokens and documents are the claimed ones", rules.SCORE)
def coverage_claim(case: Case) -> Finding:
    score = case.fact("score")
    return compare_exactly(case, {"tokens": score["tokens"], "documents": score["documents"]}, "counts")


@check("score.claim", "the score is the claimed one", rules.REPRODUCIBLE)
def score_claim(case: Case) -> Finding:
    if not case.claim.has_score:
        raise NotMeasured("a score is not claimed", needed=False)
    measured = case.fact("score")
    off = {}
    for name in ("bits", "bpb", "loss_nats"):
        claimed = getattr(case.claim, name)
        if claimed is not None and measured.get(name) is not None:
            scale = float(measured[name]) or math.inf
            off[name] = (claimed / scale - 1, half_unit(claimed) / scale)
    if not off:
        raise NotMeasured(
            "bits per byte are claimed, and nothing says the bytes; give --text or --tokenizer", needed=True
        )
    name, (worst, _) = max(off.items(), key=lambda item: abs(item[1][0]) - item[1][1])
    excess = max(abs(difference) - rounding for difference, rounding in off.values())
    side = "equal" if worst == 0 else f"{'lower' if worst < 0 else 'higher'} by {abs(worst):.2e}"
    claim = getattr(case.claim, name)
    statement = f"{_here(measured)} here; {name} {claim:.10g} is claimed ({side}, tolerance {case.tolerance:.0e})"
    here = case.facts.get("environment", {}).get("device")
    evidence = {
        "measured": {key: measured.get(key) for key in ("bits", "bpb", "loss_nats")},
        "claimed": {key: getattr(case.claim, key) for key in off},
        "relative": {key: difference for key, (difference, _) in off.items()},
        "tolerance": case.tolerance,
        "device": here,
        "claimed_device": case.claim.device,
    }
    if excess <= case.tolerance:
        return Finding(True, statement, evidence)
    if case.claim.device != here and excess <= PRECISION_TOLERANCE:
        where = case.claim.device or "a device that the claim does not name"
        missing = (
            f"a score computed as the claim's was: it comes from {where}, this one from {here}; another precision "
            f"can explain {PRECISION_TOLERANCE:.0e}; repeat with --device {case.claim.device or 'cpu or cuda'}"
        )
        return Finding(None, statement, evidence, missing)
    return Finding(False, statement, evidence, classes=("V18", "V23", "V15"))


@check("time.budget", "scoring stayed within the seconds of its own budget", rules.TIME, Kind.ARTIFACT)
def time_budget(case: Case) -> Finding:
    seconds, limit = float(case.claimed("eval_seconds")), float(case.claimed("budget_eval_seconds"))
    room = f"{limit - seconds:,.1f} s to spare" if seconds <= limit else f"{seconds - limit:,.1f} s over"
    statement = f"{seconds:,.1f} s as recorded, limit {limit:g} s of the run's own budget ({room}); not measured here"
    evidence = {"eval_seconds": seconds, "budget_eval_seconds": limit}
    return Finding(seconds <= limit, statement, evidence, classes=("V21",))


def _here(measured: Mapping[str, Any]) -> str:
    if measured.get("bpb") is not None:
        return f"{float(measured['bpb']):.8f} bits per byte"
    return f"{float(measured['loss_nats']):.8f} nats per token"
