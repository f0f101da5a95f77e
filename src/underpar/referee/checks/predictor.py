"""The predictor itself: causal, normalised, a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underpar.core.units import BITS_PER_NAT
from underpar.referee import rules
from underpar.referee.case import Case, Kind
from underpar.referee.checks.diagnose import CANARY_CLASSES, flip_classes, sum_classes
from underpar.referee.checks.registry import Finding, check
from underpar.referee.probes.canary import EVIDENCE_BITS, STAKES, evidence_bits
from underpar.referee.probes.flip import NOISE_FACTOR, tolerance
from underpar.referee.probes.sweep import DRIFT_TOLERANCE, SUM_TOLERANCE, share_ruled_out
from underpar.referee.rules import Mark

CHARGING = (Kind.ARTIFACT, Kind.POSITIONS)
PLAUSIBLE_NOISE_NATS = 2e-3
"""What another order of reductions does to one charge in bfloat16; more is no arithmetic."""
CUT_TOLERANCE_NATS = 1e-3
"""A shorter stream, or documents in another order, are computed in other shapes: this much of a charge may be rounding."""


@check("causality.flip", "later tokens do not move earlier charges", rules.CAUSAL, *CHARGING)
def causality_flip(case: Case) -> Finding:
    return _flip(case.fact("flip"))


@check("causality.whole", "later tokens do not move earlier charges, over the whole text", rules.CAUSAL, *CHARGING)
def causality_whole(case: Case) -> Finding:
    return _flip(case.fact("flip_whole"))


def _flip(fact: Mapping[str, Any]) -> Finding:
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
    allowed = max(CUT_TOLERANCE_NATS, tolerance(float(fact["noise_nats"])))
    change = float(fact["earlier_change_nats"])
    if change > allowed:
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


@check("normalisation.sweep", "probabilities sum to 1 over the vocabulary", rules.NORMALISED, *CHARGING)
def normalisation_sweep(case: Case) -> Finding:
    fact = case.fact("sweep")
    sums, ids, size = [float(one) for one in fact["sums"]], fact["ids"], fact["vocab_size"]
    low, high, is_full = min(sums), max(sums), ids >= size
    cut = float(fact["cut_change_nats"])
    span = f"sums {low:.6f} to {high:.6f}"
    what = f"all {size:,} ids" if is_full else f"{ids:,} of {size:,} ids"
    head = f"{what} charged at {len(sums)} positions: {span}, expected 1 +- {SUM_TOLERANCE:g}"
    off = max(high - 1, 1 - low if is_full else 0.0)
    noise = float(case.facts.get("flip", {}).get("noise_nats", 0.0))
    if off > max(SUM_TOLERANCE, NOISE_FACTOR * min(noise, PLAUSIBLE_NOISE_NATS)):
        return _unequal_one(fact, head, sums, noise)
    goes_by_length = cut > max(CUT_TOLERANCE_NATS, NOISE_FACTOR * noise)
    if goes_by_length and not _only_by_length(case):
        statement = (
            f"cutting the text off behind a token changes its charge by {cut:.3e} nats, expected 0: the charge depends on "
            "what follows"
        )
        return Finding(False, statement, dict(fact), classes=("V01", "V02", "V03"))
    drift = sum(sums) / len(sums) - 1
    if is_full and abs(drift) > max(DRIFT_TOLERANCE, noise):
        gain = drift * BITS_PER_NAT
        statement = (
            f"{head}; each is within the tolerance, but their mean is {1 + drift:.6f}, which is {gain:+.1e} bits a "
            "token and no rounding of single precision. Reading one: rounding of a lower precision. Reading two: a "
            "scaled distribution"
        )
        return Finding(False, statement, dict(fact), classes=("V28", "V04"), mark=Mark.DISPUTED)
    rest = "" if is_full else "; the other ids can hold what is missing, so that only an excess would have shown"
    if goes_by_length:
        rest += (
            f"; cutting the text off behind a token changes its charge by {cut:.3e} nats, while neither other tokens nor other "
            "documents behind it do: something goes by how much text there is, which is worth its number of bits and no more"
        )
    return Finding(True, f"{head}{rest}. {_sweep_power(fact)}", dict(fact))


def _only_by_length(case: Case) -> bool:
    """Whether other tokens behind a charge, and documents in another order, were tried and leave it alone."""
    flips = [case.facts[name] for name in ("flip", "flip_whole") if name in case.facts]
    is_tried = bool(flips) and "order" in case.facts
    return is_tried and all(_flip(one).passed for one in flips) and bool(causality_order(case).passed)


def _unequal_one(fact: Mapping[str, Any], head: str, sums: list[float], noise: float) -> Finding:
    """Sums that are not 1; where the predictor's own noise is as large, it cannot be told whether they are."""
    low, high, is_full = min(sums), max(sums), fact["ids"] >= fact["vocab_size"]
    worst = max(range(len(sums)), key=lambda index: abs(sums[index] - 1) if is_full else sums[index])
    off = abs(sums[worst] - 1)
    fate = "is given away twice" if sums[worst] > 1 else "is given to no token"
    statement = (
        f"{head}; at token {fact['positions'][worst]:,} the sum is {sums[worst]:.6f}, so that {off:.3g} of probability "
        f"{fate}"
    )
    classes = sum_classes(low, high, SUM_TOLERANCE)
    if off > NOISE_FACTOR * noise:
        return Finding(False, statement, dict(fact), classes=classes)
    statement += (
        f". Equal runs of this predictor differ by {noise:.1e} nats. Reading one: that is all it is. Reading two: the "
        "noise hides a sum that is not 1"
    )
    return Finding(False, statement, dict(fact), classes=classes, mark=Mark.DISPUTED)


def _sweep_power(fact: Mapping[str, Any]) -> str:
    random, screened = fact["chosen_at_random"], fact.get("screened", 0)
    more = (
        f". Of {screened} positions, at which the {fact['screened_ids']} likeliest ids hold "
        f"{float(fact['largest_screened']):.4f} at most, those that hold the most are among them"
        if screened
        else ""
    )
    return (
        f"Rules out, at 95 %, that more than {share_ruled_out(random):.0%} of these positions are wrong ({random} "
        f"chosen at random); says nothing of longer histories{more}"
    )


# ------------------------------------------------------------------------------------------------- canaries


@check("canary.uniform", "uniformly random text is not compressed", rules.NORMALISED, *CHARGING)
def canary_uniform(case: Case) -> Finding:
    return _canary(case, "uniform", "ids drawn uniformly")


@check("canary.frequency", "shuffled text is not compressed below its token entropy", rules.NORMALISED, *CHARGING)
def canary_frequency(case: Case) -> Finding:
    return _canary(case, "frequency", "ids drawn with the frequencies of the text")


@check(
    "canary.text",
    "text drawn from a known trigram model is not compressed below its entropy",
    rules.NORMALISED,
    *CHARGING,
)
def canary_like_text(case: Case) -> Finding:
    return _canary(case, "text", "ids drawn by a trigram model of the text")


def _canary(case: Case, name: str, drawn: str) -> Finding:
    fact = case.fact(f"canary_{name}")
    purses = [float(one) for one in fact["purse_log2"]]
    evidence = evidence_bits(purses)
    head = (
        f"{float(fact['mean_nats']):.4f} nats per token against an entropy of {float(fact['entropy_nats']):.4f} on "
        f"{fact['tokens']:,} {drawn}"
    )
    if evidence < EVIDENCE_BITS:
        power = (
            f"expected no wager against it to win 2^{EVIDENCE_BITS:.0f}, the best stands at 2^{evidence:,.0f}. A "
            f"gain of {float(fact['hidden_gain_nats']):.2g} nats per token on such text would have been seen; a "
            "smaller one stays unseen, and so does a predictor that knows such text and behaves"
        )
        return Finding(True, f"{head}; {power}", dict(fact))
    stake = STAKES[max(range(len(purses)), key=purses.__getitem__)]
    statement = (
        f"{head}: {float(fact['saved_bits']):,.0f} bits saved; wagers of {stake:g} of a purse on each token being "
        f"too cheap made 2^{evidence:,.0f} of it, which a valid predictor allows with a chance of at most "
        f"2^-{evidence:,.0f}"
    )
    return Finding(False, statement, dict(fact), classes=CANARY_CLASSES)
