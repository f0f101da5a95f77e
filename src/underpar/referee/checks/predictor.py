"""The predictor's probabilities: normalised, a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underpar.core.units import BITS_PER_NAT
from underpar.referee import rules
from underpar.referee.case import Case
from underpar.referee.checks.causality import CHARGING, causality_order, flip_finding, keeps_another_order
from underpar.referee.checks.diagnose import CANARY_CLASSES, sum_classes
from underpar.referee.checks.registry import Finding, check
from underpar.referee.probes.canary import EVIDENCE_BITS, STAKES, evidence_bits
from underpar.referee.probes.flip import CUT_TOLERANCE_NATS, NOISE_FACTOR
from underpar.referee.probes.sweep import DRIFT_TOLERANCE, SUM_TOLERANCE, share_ruled_out
from underpar.referee.rules import Mark

PLAUSIBLE_NOISE_NATS = 2e-3
"""What another order of reductions does to one charge in bfloat16; more is no arithmetic."""


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
    is_other_order = goes_by_length and keeps_another_order(case)
    if goes_by_length and not is_other_order and not _only_by_length(case):
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
    if is_other_order:
        rest += (
            f"; cutting the text off behind a token changes its charge by {cut:.3e} nats, which the order of the documents "
            "explains (causality.arrangement)"
        )
    elif goes_by_length:
        rest += (
            f"; cutting the text off behind a token changes its charge by {cut:.3e} nats, while neither other tokens nor other "
            "documents behind it do: something goes by how much text there is, which is worth its number of bits and no more"
        )
    return Finding(True, f"{head}{rest}. {_sweep_power(fact)}", dict(fact))


def _only_by_length(case: Case) -> bool:
    """Whether other tokens behind a charge, and documents in another order, were tried and leave it alone."""
    flips = [case.facts[name] for name in ("flip", "flip_whole") if name in case.facts]
    is_tried = bool(flips) and "order" in case.facts
    return is_tried and all(flip_finding(one).passed for one in flips) and bool(causality_order(case).passed)


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
        f". {screened} positions were screened with the {fact['screened_ids']} likeliest ids, many in one pass; those where "
        f"they seemed to hold the most are among them, and {float(fact['largest_screened']):.4f} is the most that was proven"
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
