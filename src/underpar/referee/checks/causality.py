"""The past alone decides: what later tokens, the order of documents and the end of one may not move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underpar.referee import rules
from underpar.referee.case import Case, Kind
from underpar.referee.checks.diagnose import flip_classes
from underpar.referee.checks.registry import Finding, check
from underpar.referee.probes.flip import CUT_TOLERANCE_NATS, tolerance
from underpar.referee.probes.sweep import share_ruled_out

CHARGING = (Kind.ARTIFACT, Kind.POSITIONS)
OTHER_ORDER = "not judged: {}, which another order of the documents explains (causality.arrangement)"


@check("causality.flip", "later tokens do not move earlier charges", rules.CAUSAL, *CHARGING)
def causality_flip(case: Case) -> Finding:
    return _flip(case, case.fact("flip"))


@check("causality.whole", "later tokens do not move earlier charges, over the whole text", rules.CAUSAL, *CHARGING)
def causality_whole(case: Case) -> Finding:
    return _flip(case, case.fact("flip_whole"))


def _flip(case: Case, fact: Mapping[str, Any]) -> Finding:
    found = flip_finding(fact)
    if found.passed or not keeps_another_order(case):
        return found
    return Finding(None, OTHER_ORDER.format("altering later tokens moves earlier charges"), found.evidence)


def flip_finding(fact: Mapping[str, Any]) -> Finding:
    """Of altered tokens, as they stand in the text."""
    allowed, trials = tolerance(float(fact["noise_nats"])), fact["trials"]
    worst = max(trials, key=lambda trial: float(trial["change_nats"]), default=None)
    if worst is None or float(worst["change_nats"]) <= allowed:
        places = sorted({trial["position"] for trial in trials})
        change = 0.0 if worst is None else float(worst["change_nats"])
        statement = (
            f"{len(trials)} alterations behind {len(places)} positions of {trials[0]['tokens'] if trials else 0:,} "
            f"tokens, one token alone and the whole rest: earlier charges move by {change:.1e} nats at most, "
            f"expected 0 (noise between equal runs {float(fact['noise_nats']):.1e}). Rules out state from the whole "
            "text; a look ahead of a few tokens stays unseen where it acts at less than "
            f"{share_ruled_out(len(places)):.0%} of positions"
        )
        return Finding(True, statement, dict(fact))
    moving = sum(1 for trial in trials if float(trial["change_nats"]) > allowed)
    worst = max(trials, key=lambda trial: (trial["moved"], float(trial["change_nats"])))
    what = {
        "token": "token {} alone",
        "text": "all from token {} on by other text",
        "random": "all from token {} on by random ids",
    }
    altered = what[worst["kind"]].format(f"{worst['position']:,}")
    statement = (
        f"replacing {altered} moved {worst['moved']:,} of {worst['position'] - 1:,} earlier charges, by up to "
        f"{float(worst['change_nats']):.3e} nats, expected 0 (noise {float(fact['noise_nats']):.1e}); {moving} of "
        f"{len(trials)} alterations did. Both texts were charged twice and the change came back"
    )
    return Finding(False, statement, dict(fact), classes=flip_classes(trials))


@check("causality.order", "exchanging two documents does not move charges before them", rules.CAUSAL, *CHARGING)
def causality_order(case: Case) -> Finding:
    fact = case.fact("order")
    change = float(fact["earlier_change_nats"])
    if _order_moved(fact):
        if keeps_another_order(case):
            return Finding(None, OTHER_ORDER.format("exchanging documents moves charges before them"), dict(fact))
        statement = (
            "exchanging two neighbouring documents moved earlier charges, the first that of token "
            f"{fact['first_moved']:,}, by up to {change:.3e} nats, expected 0"
        )
        return Finding(False, statement, dict(fact), classes=("V01", "V03", "V12"))
    kind = "the two and all later documents cost the same: a fixed predictor, blind to their order" if fact["is_fixed"] else (
        f"the two change by {float(fact['swapped_change_nats']):.3g} nats and later ones by up to "
        f"{float(fact['later_change_nats']):.3g}: it adapts, or its windows reach across documents"
    )  # fmt: skip
    statement = (
        f"{fact['swaps']} exchanges of neighbours among {fact['documents']} documents: charges before them stay; {kind}"
    )
    return Finding(True, statement, dict(fact))


@check("causality.isolation", "the end of a document does not leak into the next one", rules.ISOLATED, *CHARGING)
def causality_isolation(case: Case) -> Finding:
    fact = case.fact("isolation")
    allowed = tolerance(float(fact["noise_nats"]))
    last, earlier = float(fact["last_change_nats"]), float(fact["earlier_change_nats"])
    places = f"{len(fact['boundaries'])} boundaries"
    if last <= allowed and earlier <= allowed:
        return Finding(True, f"{places}: whatever stands in a document, the next one costs the same", dict(fact))
    if earlier > allowed:
        statement = (
            f"not judged: documents are not kept apart at {places}: tokens well before the end of one move charges "
            f"of the next by {earlier:.3g} nats. Reading one (G7): any context is allowed, so nothing is wrong. "
            "Reading two (G16, strictly): documents are independent, so it is. A look-back of one token, which the "
            "rule names, cannot be told apart here"
        )
        return Finding(None, statement, dict(fact))
    statement = (
        f"{places}: the last token of a document moves charges of the next one by {last:.3g} nats, earlier tokens do "
        "not: a local look-back reads across the start of a document. Reading one (audit note in #1797): not "
        "allowed. Reading two (#1988): it is causal, and the score stands"
    )
    return Finding(False, statement, dict(fact), classes=("V14",))


@check("causality.arrangement", "documents are scored in the order of the text", rules.IN_ORDER, *CHARGING)
def causality_arrangement(case: Case) -> Finding:
    flips = [case.fact("flip"), *([case.facts["flip_whole"]] if "flip_whole" in case.facts else [])]
    if all(flip_finding(one).passed for one in flips) and not _order_moved(case.facts.get("order")):
        statement = "nothing moved that stands earlier in the text, so that nothing asks for another order"
        return Finding(True, statement, {"streams": len(flips), "order": "order" in case.facts})
    if "arrangement" not in case.facts:
        return Finding(None, "not judged: there are not two documents whose order could explain what moved", {})
    fact = case.fact("arrangement")
    tried = f"{len(fact['altered'])} of {fact['documents']} documents, the words of one altered at a time"
    if not keeps_another_order(case):
        why = "words of a document move earlier charges of its own" if fact["own"] else (
            "documents move each other in a circle" if fact["circle"] else "the text moves what the order cannot explain"
        )  # fmt: skip
        return Finding(None, f"not judged: no order of the documents explains what moved: {why} ({tried})", dict(fact))
    score = case.facts.get("score", {})
    readings = _order_readings(score.get("bpb"), score.get("bytes"), float(fact["layout_bits"]))
    what = (
        f"{fact['backward']} pairs of which the later document moves the earlier one, and none that move each other"
        if fact["backward"]
        else "none moves one before it, but their lengths do"
    )
    statement = (
        "documents are not scored one after the other as they stand in the text, or by a schedule of all their lengths. "
        f"{tried}: {what}; no charge moves with later words of its own document. Disputed is whether the order is free. "
        "Reading one, as administered: merged records (#1530 and what followed) score the longest documents first, and "
        f"every charge is final before anything learns from it (G6); {readings[0]['says']}. Reading two: one pass from "
        f"left to right (#1017, condition 4), in which the lengths of later documents are not known; {readings[1]['says']}. "
        "Shown is that these documents keep some order, not which one, and not that all others do"
    )
    return Finding(False, statement, dict(fact) | {"readings": readings})


def _order_moved(fact: Mapping[str, Any] | None) -> bool:
    """Whether documents that were exchanged moved what stands before them."""
    if fact is None:
        return False
    return float(fact["earlier_change_nats"]) > max(CUT_TOLERANCE_NATS, tolerance(float(fact["noise_nats"])))


def keeps_another_order(case: Case) -> bool:
    """Whether an order of the documents was found that explains every charge that moved with a later token."""
    whole = case.facts.get("flip_whole", {}).get("trials", ())
    needed = ("arrangement", "arrangement_whole") if any(trial["moved"] for trial in whole) else ("arrangement",)
    trials = [*case.facts.get("flip", {}).get("trials", ()), *whole]
    explained = all(case.facts.get(name, {}).get("keeps_an_order", False) for name in needed)
    return explained and not any(trial["moved"] and trial.get("own_moved", True) for trial in trials)


def _order_readings(bpb: float | None, text_bytes: int | None, bits: float) -> list[dict[str, Any]]:
    """The score as administered, and that of a text whose lengths are told first."""
    one = {"reading": "in any order", "bpb": bpb, "says": "the score stands" + (f" at {bpb:.6f} bpb" if bpb else "")}
    total = bpb + bits / text_bytes if bpb and text_bytes else None
    says = (
        f"a decoder that is told all lengths first could follow, for {bits:,.0f} bits at most"
        f"{f', {total:.6f} bpb in all' if total else ''}; without them the score is none"
    )
    return [one, {"reading": "in the order of the text, told the lengths", "bpb": total, "says": says}]
