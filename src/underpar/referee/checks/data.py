"""The held-out text itself: was it among the training tokens, and does the predictor know it by heart."""

from __future__ import annotations

from underpar.referee import rules
from underpar.referee.case import Case, Kind
from underpar.referee.checks.registry import Finding, check
from underpar.referee.probes.memory import LONG_TOKENS
from underpar.referee.rules import Mark

OVERLAP_SHARE = 0.01
"""Held-out documents that also stand in the training shards: below this share they may be copies that the source itself has."""
HALF_SHARED_SHARE = 0.10
LEARNT_SHARE = 0.9
"""Of the sequences of 13 tokens in what is known by heart, that stand in the training shards: they were learnt there. That
explains forms and licences, and no more of the text than may stand in both splits."""
LOST_SHARE = 0.02
"""Rise of the cost of everything behind one altered token, in the median. Honest predictors show a thousandth or less."""
DEARER_SHARE = 0.8
"""Of the tokens behind one altered token, that become dearer, in the median: what adapts is moved up and down."""
UNSEEN_Z = 6.0
UNSEEN_SHARE = 0.05


@check("data.overlap", "held-out documents are not among the training documents", rules.HELD_OUT)
def data_overlap(case: Case) -> Finding:
    fact = case.fact("overlap")
    documents, exact, half = fact["documents"], fact["exact_documents"], fact["half_shared_documents"]
    share = exact / max(1, documents)
    statement = (
        f"{exact:,} of {documents:,} held-out documents ({share:.2%}) stand whole in {fact['train_tokens']:,} "
        f"training tokens, {half:,} share half of their 13-grams or more; {fact['shared_grams']:,} of "
        f"{fact['grams']:,} 13-grams are shared"
    )
    if share >= OVERLAP_SHARE:
        return Finding(False, f"{statement}; expected none", dict(fact), classes=("V09",))
    if exact or half / max(1, documents) >= HALF_SHARED_SHARE:
        readings = ". Reading one: copies that the source has of itself. Reading two: the splits overlap"
        return Finding(False, statement + readings, dict(fact), classes=("V09",), mark=Mark.DISPUTED)
    return Finding(
        True, f"{statement}. Says nothing of text that was rewritten, or of shards that were not shown", dict(fact)
    )


@check("data.memory", "no new text is known by heart", rules.HELD_OUT, Kind.ARTIFACT, Kind.POSITIONS)
def data_memory(case: Case) -> Finding:
    fact = case.fact("free_run")
    rise, dearer = _typical(case, "later_rise"), _typical(case, "later_dearer")
    evidence = dict(fact) | {"later_rise": rise, "later_dearer": dearer}
    is_lost = (rise is not None and rise >= LOST_SHARE) or (dearer is not None and dearer >= DEARER_SHARE)
    lost = (
        ""
        if rise is None
        else f"; one altered token changes the cost of the rest by {rise:+.2%}, and {dearer or 0.0:.0%} of its tokens "
        "become dearer"
    )
    if fact["tokens"] < LONG_TOKENS and not is_lost:
        statement = (
            f"the longest stretch of new text at almost no cost has {fact['tokens']} tokens, expected fewer than "
            f"{LONG_TOKENS}{lost} (expected below {LOST_SHARE:.0%} and {DEARER_SHARE:.0%}); a copy that finds its place "
            "again stays unseen"
        )
        return Finding(True, statement, evidence)
    free = (
        f"{fact['tokens']:,} tokens from token {fact['start']:,} on, which had not occurred before, cost "
        f"{float(fact['nats']):.3g} nats together, and {float(fact['share_free']):.2%} of the text is like that"
        if fact["start"] is not None
        else "no long stretch of new text is free"
    )
    shown = case.facts.get("overlap", {})
    grams, shared = int(shown.get("free_grams", 0)), int(shown.get("shared_free_grams", 0))
    if grams:
        free += f"; {shared:,} of {grams:,} 13-grams of such stretches stand in the training shards"
        evidence |= {"free_grams": grams, "shared_free_grams": shared}
    is_explained = shared >= LEARNT_SHARE * grams and float(fact["share_free"]) < OVERLAP_SHARE
    if grams and is_explained and not is_lost:
        return Finding(True, f"{free}, so that they were learnt there, as licences and forms are{lost}", evidence)
    statement = (
        f"{free}{lost}. Reading one: the text is stored, and followed word by word. Reading two: it was in the "
        "training data by right, as a licence or a form is"
    )
    return Finding(False, statement, evidence, classes=("V10", "V01", "V09"), mark=Mark.DISPUTED)


def _typical(case: Case, name: str) -> float | None:
    """The median, over alterations of one token, of what became of the rest."""
    trials = [*case.facts.get("flip", {}).get("trials", ()), *case.facts.get("flip_whole", {}).get("trials", ())]
    found = sorted(float(trial[name]) for trial in trials if trial.get(name) is not None)
    return found[len(found) // 2] if found else None


@check(
    "data.unseen",
    "held-out text costs what other text of its kind costs",
    rules.HELD_OUT,
    Kind.ARTIFACT,
    Kind.POSITIONS,
)
def data_unseen(case: Case) -> Finding:
    fact = case.fact("unseen")
    held, other = float(fact["held_out_nats"]), float(fact["unseen_nats"])
    statement = (
        f"{held:.4f} nats per token in {fact['held_out_documents']:,} held-out documents, {other:.4f} in "
        f"{fact['unseen_documents']:,} unseen ones (z = {float(fact['z']):+.1f}, expected above {-UNSEEN_Z:g})"
    )
    if float(fact["z"]) > -UNSEEN_Z or held > (1 - UNSEEN_SHARE) * other:
        return Finding(True, statement, dict(fact))
    statement += ". Reading one: the held-out text was seen. Reading two: the other text is harder"
    return Finding(False, statement, dict(fact), classes=("V10", "V09", "V01"), mark=Mark.DISPUTED)
