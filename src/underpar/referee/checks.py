"""The list of checks, in the order in which a verdict reports them. Each compares measured facts with a rule or a claim.

A check is a function from a case to (passed, statement, evidence) with its id, title and rule beside it. It raises NotMeasured
where a fact is absent; it is then reported as not checked. A new check is one more decorated function.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from underpar.core.units import BITS_PER_NAT
from underpar.referee import rules
from underpar.referee.case import Case, NotMeasured
from underpar.referee.claim import half_unit
from underpar.referee.rules import Rule
from underpar.referee.verdict import CheckResult

PRECISION_TOLERANCE = 2e-3
"""Relative difference that another precision (bfloat16 against float32) can explain."""
PRINTED_TOLERANCE = 1e-6
"""Relative slack of sums that are printed in full."""


class Finding(NamedTuple):
    """What a check found. passed None: it ran and could not decide; `missing` then says what would."""

    passed: bool | None
    statement: str
    evidence: dict[str, Any]
    missing: str | None = None


@dataclass(frozen=True)
class Check:
    """One registered check."""

    id: str
    title: str
    rule: Rule
    examine: Callable[[Case], Finding]

    def run(self, case: Case) -> CheckResult:
        """The result on a case; never raises for what a submission contains."""
        blank = CheckResult(self.id, self.title, self.rule.id, self.rule.mark, None, "")
        try:
            found = self.examine(case)
        except NotMeasured as gap:
            return replace(blank, statement=f"not checked: {gap}", missing=str(gap) if gap.needed else None)
        evidence = json.loads(json.dumps(found.evidence))  # plain, so that a verdict equals what its file gives back
        return replace(blank, passed=found.passed, statement=found.statement, evidence=evidence, missing=found.missing)


CHECKS: list[Check] = []
"""Every check, in order."""


def check(id: str, title: str, rule: Rule) -> Callable[[Callable[[Case], Finding]], Callable[[Case], Finding]]:
    """Register a function as a check."""

    def register(examine: Callable[[Case], Finding]) -> Callable[[Case], Finding]:
        CHECKS.append(Check(id, title, rule, examine))
        return examine

    return register


def run_checks(case: Case, checks: Iterable[Check] | None = None) -> tuple[CheckResult, ...]:
    """Every check on one case."""
    return tuple(one.run(case) for one in (CHECKS if checks is None else checks))


# ------------------------------------------------------------------------------------------------- size


@check("size.budget", "artifact within its byte budget, code included", rules.SIZE)
def size_budget(case: Case) -> Finding:
    if case.code is None:
        raise NotMeasured(f"the counted code: {case.code_problem}", needed=True)
    total, limit = case.container_bytes + case.code.code_bytes, case.limit
    room = f"{limit.bytes - total:,} to spare" if total <= limit.bytes else f"{total - limit.bytes:,} over"
    origin = "as shipped" if case.code.shipped else "packed from this installation, none was shipped"
    statement = (
        f"container {case.container_bytes:,} + code {case.code.code_bytes:,} ({origin}) = {total:,} B, limit {limit.bytes:,} "
        f"of {limit.source} ({room}); the tokenizer comes with the data and is not counted"
    )
    evidence = {
        "container_bytes": case.container_bytes,
        "code_bytes": case.code.code_bytes,
        "total_bytes": total,
        "limit_bytes": limit.bytes,
        "limit_source": limit.source,
    }
    return Finding(total <= limit.bytes, statement, evidence)


@check("size.claim", "sizes are the claimed ones", rules.SIZE)
def size_claim(case: Case) -> Finding:
    measured: dict[str, Any] = {"container_bytes": case.container_bytes}
    if case.code is not None and case.code.shipped:
        measured["code_bytes"] = case.code.code_bytes
        measured["artifact_bytes"] = case.container_bytes + case.code.code_bytes
    return _compare_exactly(case, measured, "sizes")


@check("size.file", "the judged file is the one that was packed and scored", rules.REPRODUCIBLE)
def size_file(case: Case) -> Finding:
    measured = {"artifact_sha256": case.artifact_sha256, "packed_sha256": case.artifact_sha256}
    return _compare_exactly(case, measured, "file hashes")


@check("code.complete", "the counted code holds everything that loading and scoring imports", rules.SIZE)
def code_complete(case: Case) -> Finding:
    code = case.code
    if code is None:
        return Finding(False, f"the counted code is unreadable: {case.code_problem}", {"problem": case.code_problem})
    if not code.shipped:
        raise NotMeasured("no code archive was handed in", needed=False)
    same = "byte for byte what scored it here" if code.same_as_installed else (
        f"another version than what scored it here (that one packs to {code.own_code_bytes:,} B)"
    )  # fmt: skip
    statement = f"{code.modules} modules reached from the entries, none missing; {same}"
    if code.missing:
        statement = f"{len(code.missing)} imported modules are not in the archive, the first is {code.missing[0]}"
    return Finding(not code.missing, statement, code.to_json())


# ------------------------------------------------------------------------------------------------- artifact and tokenizer


@check("artifact.reload", "the model rebuilds from the artifact alone", rules.CLOSED)
def artifact_reload(case: Case) -> Finding:
    problem = case.errors.get("reload")
    if problem and problem["kind"] in ("ArtifactError", "ConfigError"):
        return Finding(False, f"the artifact does not load: {problem['message']}", dict(problem))
    fact = case.fact("reload")
    same = fact["sha256"] == case.artifact_sha256
    statement = (
        f"{fact['parameters']:,} parameters and {fact['window']} read from the file, checksums whole, architecture from its "
        "header"
    )
    if not same:
        statement = f"the clean process read a file with sha256 {fact['sha256'][:16]}, not {case.artifact_sha256[:16]}"
    return Finding(
        same, statement, {"parameters": fact["parameters"], "window": fact["window"], "sha256": fact["sha256"]}
    )


@check("tokenizer.identity", "the tokenizer is the one that the artifact names", rules.TOKENIZER)
def tokenizer_identity(case: Case) -> Finding:
    named, given = case.fact("reload"), case.fact("tokenizer")
    wanted = named["tokenizer"].get("sha256") if isinstance(named["tokenizer"], dict) else None
    if wanted != given["sha256"]:
        statement = f"the artifact names sha256 {str(wanted)[:16]}, the tokenizer given has {given['sha256'][:16]}"
        return Finding(False, statement, {"artifact": named["tokenizer"], "given": dict(given)})
    fits = named["vocab_size"] == given["vocab_size"]
    statement = f"{given['name']}, sha256 {given['sha256'][:16]}, {given['vocab_size']:,} ids"
    if not fits:
        statement += f", but the model predicts {named['vocab_size']:,}"
    return Finding(fits, statement, {"given": dict(given), "model_vocab_size": named["vocab_size"]})


@check("tokenizer.lossless", "the text can be recovered from its tokens", rules.LOSSLESS)
def tokenizer_lossless(case: Case) -> Finding:
    text = case.fact("text")
    altered, documents = text["altered_documents"], text["documents"]
    evidence = {"documents": documents, "altered": altered, "first_altered": text["first_altered"]}
    if altered:
        statement = (
            f"{altered:,} of {documents:,} documents are not recovered exactly, the first is document {text['first_altered']}; "
            "bits per byte of a text that was rewritten first are lossy. Reading one: the bytes of the original count, so "
            "the score stands. Reading two: what cannot be recovered was not predicted"
        )
        return Finding(False, statement, evidence | {"declared_lossless": case.fact("tokenizer")["lossless"]})
    return Finding(
        True, f"all {documents:,} documents decode to their exact text; says nothing of other texts", evidence
    )


# ------------------------------------------------------------------------------------------------- bytes


@check("bytes.denominator", "the denominator is the UTF-8 length of the raw text", rules.SCORE)
def bytes_denominator(case: Case) -> Finding:
    text = case.fact("text")
    evidence = {key: text[key] for key in ("text_bytes", "stream_bytes", "first_unequal_document", "text_sha256")}
    if text["stream_bytes"] != text["text_bytes"] or text["first_unequal_document"] is not None:
        statement = f"tokens stand for {text['stream_bytes']:,} bytes, the raw documents have {text['text_bytes']:,}"
        return Finding(False, statement, evidence)
    claimed = case.claim.bytes
    if claimed is None:
        return Finding(True, f"{text['text_bytes']:,} B, equal in every document; no number is claimed", evidence)
    evidence["claimed_bytes"] = claimed
    if claimed != text["text_bytes"]:
        share = claimed / text["text_bytes"] - 1
        statement = f"{claimed:,} bytes are claimed, the raw text has {text['text_bytes']:,} ({share:+.4%})"
        return Finding(False, statement, evidence)
    return Finding(True, f"{text['text_bytes']:,} B as claimed, equal in every document", evidence)


@check("bytes.invariant", "claimed tokens, loss and bits per byte imply the bytes of the text", rules.SCORE)
def bytes_invariant(case: Case) -> Finding:
    text_bytes = case.fact("text")["text_bytes"]
    tokens, loss, bpb = (case.claimed(name) for name in ("tokens", "loss_nats", "bpb"))
    implied = tokens * loss * BITS_PER_NAT / bpb if bpb else math.inf
    rounding = (half_unit(loss) / loss if loss else 0.0) + (half_unit(bpb) / bpb if bpb else 0.0)
    allowed = PRINTED_TOLERANCE + rounding
    off = implied / text_bytes - 1
    statement = (
        f"tokens x loss / (ln 2 x bpb) = {implied:,.0f} B, the text has {text_bytes:,} "
        f"({off:+.1e}, allowed {allowed:.1e})"
    )
    return Finding(
        abs(off) <= allowed, statement, {"implied_bytes": implied, "text_bytes": text_bytes, "relative": off}
    )


# ------------------------------------------------------------------------------------------------- score


@check("coverage.ledger", "every token of every document is charged exactly once", rules.SINGLE_PASS)
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
    return _compare_exactly(case, {"tokens": score["tokens"], "documents": score["documents"]}, "counts")


@check("score.claim", "the score is the claimed one", rules.REPRODUCIBLE)
def score_claim(case: Case) -> Finding:
    if not case.claim.has_score:
        raise NotMeasured("no score is claimed", needed=False)
    measured = case.fact("score")
    off = {}
    for name in ("bits", "bpb", "loss_nats"):
        claimed = getattr(case.claim, name)
        if claimed is not None:
            scale = measured[name] or math.inf
            off[name] = (claimed / scale - 1, half_unit(claimed) / scale)
    name, (worst, _) = max(off.items(), key=lambda item: abs(item[1][0]) - item[1][1])
    excess = max(abs(difference) - rounding for difference, rounding in off.values())
    side = "as claimed" if worst == 0 else f"claimed {'lower' if worst < 0 else 'higher'} by {abs(worst):.2e}"
    statement = (
        f"{measured['bpb']:.8f} bits per byte here; {name} {side} relative to it, tolerance {case.tolerance:.0e}"
    )
    here = case.facts.get("environment", {}).get("device")
    evidence = {
        "measured": {key: measured[key] for key in ("bits", "bpb", "loss_nats")},
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
            f"a score computed as the claim's was: it comes from {where}, this one from {here}; another precision can explain "
            f"{PRECISION_TOLERANCE:.0e}; repeat with --device {case.claim.device or 'cpu or cuda'}"
        )
        return Finding(None, statement, evidence, missing)
    return Finding(False, statement, evidence)


# ------------------------------------------------------------------------------------------------- predictor


@check("canary.uniform", "random text is not compressed", rules.NORMALISED)
def canary_uniform(case: Case) -> Finding:
    return _canary(case.fact("canary_uniform"), "ids drawn uniformly")


@check("canary.frequency", "shuffled text is not compressed below its token entropy", rules.NORMALISED)
def canary_frequency(case: Case) -> Finding:
    return _canary(case.fact("canary_frequency"), "ids drawn with the frequencies of the text")


def _canary(fact: Any, drawn: str) -> Finding:
    head = (
        f"{fact['mean_nats']:.4f} nats per token against an entropy of {fact['entropy_nats']:.4f} "
        f"on {fact['tokens']:,} {drawn}"
    )
    if fact["passed"]:
        power = (
            f"rules out a gain of more than {fact['hidden_gain_nats']:.2f} nats per token on such text by looking at what is "
            "charged; a smaller one stays unseen"
        )
        return Finding(True, f"{head}; {power}", dict(fact))
    bound = f"2^{fact['chance_log2']:,.0f}"
    odds = f"{fact['saved_bits']:,.0f} bits saved, which a valid predictor does with a chance of at most {bound}"
    return Finding(False, f"{head}: {odds}", dict(fact))


@check("causality.flip", "later tokens do not move earlier charges", rules.CAUSAL)
def causality_flip(case: Case) -> Finding:
    fact = case.fact("flip")
    trials = len(fact["positions"])
    statement = (
        f"{trials} positions of {fact['tokens']:,} tokens, one token and then the whole rest altered: earlier charges move by "
        f"{fact['largest_change_nats']:.1e} nats at most (noise {fact['noise_nats']:.1e}); a leak that acts at other positions "
        "only stays unseen"
    )
    if not fact["passed"]:
        statement = (
            f"altering the text from token {fact['worst_position']} on moved an earlier charge by "
            f"{fact['largest_change_nats']:.3e} nats (noise {fact['noise_nats']:.1e})"
        )
    return Finding(fact["passed"], statement, dict(fact))


@check("normalisation.sweep", "probabilities sum to 1 over the vocabulary", rules.NORMALISED)
def normalisation_sweep(case: Case) -> Finding:
    fact = case.fact("sweep")
    low, high = (float(fact[key]) for key in ("least_sum", "largest_sum"))
    statement = (
        f"all {fact['vocab_size']:,} ids charged at {fact['positions']} positions of one row: sums {low:.6f} to {high:.6f}, "
        "allowed 1 +- 0.001; says nothing of positions with a longer history"
    )
    return Finding(fact["passed"], statement, dict(fact))


# ------------------------------------------------------------------------------------------------- the process


@check("process.closed", "scored in a clean process without a network", rules.CLOSED)
def process_closed(case: Case) -> Finding:
    fact = case.fact("confinement")
    network = "no network" if fact["network"] == "none" else f"network {fact['network']}"
    statement = (
        f"{network}; {fact['files']}; {len(fact['environment'])} environment variables. The artifact is data: nothing of the "
        "submission was executed"
    )
    if fact["network"] == "none":
        return Finding(True, statement, dict(fact))
    return Finding(None, f"not checked: {statement}", dict(fact))


def _compare_exactly(case: Case, measured: dict[str, Any], what: str) -> Finding:
    """Every measured value that is also claimed must be equal to the claim."""
    claimed = {name: getattr(case.claim, name) for name in measured if getattr(case.claim, name) is not None}
    if not claimed:
        raise NotMeasured(f"no {what} are claimed", needed=False)
    evidence = {"measured": measured, "claimed": claimed}
    wrong = [name for name, value in claimed.items() if value != measured[name]]
    if wrong:
        name = wrong[0]
        return Finding(False, f"{name}: {_show(claimed[name])} claimed, {_show(measured[name])} measured", evidence)
    return Finding(
        True, ", ".join(f"{name} {_show(value)}" for name, value in claimed.items()) + ", as claimed", evidence
    )


def _show(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)[:16]
