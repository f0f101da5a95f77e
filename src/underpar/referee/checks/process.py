"""The process around the predictor: repetition, another start, other tokens first, closure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underpar.referee import rules
from underpar.referee.case import PROGRAMS, Case, Kind
from underpar.referee.checks.registry import Finding, check
from underpar.referee.probes.flip import NOISE_FACTOR, TOLERANCE_NATS, tolerance
from underpar.referee.rules import Mark

CHARGING = (Kind.ARTIFACT, Kind.POSITIONS)
REPEAT_TOLERANCE = 1e-4
"""Relative difference of the sums of two equal runs: a twentieth of the smallest gain that counts as a record."""


@check("process.repeats", "two equal runs give the same charges", rules.REPRODUCIBLE, *CHARGING)
def process_repeats(case: Case) -> Finding:
    fact = case.fact("flip")
    largest, total = float(fact["noise_nats"]), float(fact["total_nats"])
    off = float(fact["noise_total_nats"]) / max(total, 1e-9)
    tokens = fact["trials"][0]["tokens"] if fact["trials"] else 0
    statement = (
        f"the same {tokens:,} tokens from the same state: charges differ by {largest:.1e} nats at most, their sums "
        f"by {off:.1e} relative, expected at most {REPEAT_TOLERANCE:.0e}"
    )
    evidence = {"noise_nats": largest, "relative": off, "total_nats": total}
    if off <= REPEAT_TOLERANCE:
        return Finding(True, statement, evidence)
    statement += ". Reading one: chance is part of the method, and one run is one draw. Reading two: state is left over"
    return Finding(False, statement, evidence, classes=("V24",), mark=Mark.COMMUNITY)


@check("process.replay", "a program started for one question gives the same answer", rules.REPRODUCIBLE, *CHARGING)
def process_replay(case: Case) -> Finding:
    found = _pair(case.fact("replay"), "the program has kept something from earlier questions", ("V03", "V25"))
    flip = case.facts.get("flip", {"trials": (), "noise_nats": 0.0})
    moved = max((float(trial["change_nats"]) for trial in flip["trials"]), default=0.0)
    if found.passed or moved <= tolerance(float(flip["noise_nats"])):
        return found
    # The program started anew is given another second half, which moves such a predictor's charges anyway.
    return Finding(None, "not judged: later tokens move earlier charges, with one program already", found.evidence)


@check("process.warm_up", "what a program is warmed up on is not in its charges", rules.SCORE_FIRST, *CHARGING)
def process_warm_up(case: Case) -> Finding:
    return _pair(case.fact("warm_up"), "the warm-up is not put back", ("V13", "V12"))


@check("process.world", "the number of processes does not change the charges", rules.REPRODUCIBLE, *CHARGING)
def process_world(case: Case) -> Finding:
    fact = case.fact("world")
    largest, off = float(fact["largest_change_nats"]), float(fact["relative"])
    statement = (
        f"{fact['what']} against one on {fact['tokens']:,} tokens: charges differ by {largest:.1e} nats at most, "
        f"their sums by {off:.1e} relative, expected at most {REPEAT_TOLERANCE:.0e}"
    )
    if off <= REPEAT_TOLERANCE:
        statement += ". A score that depends on it by more would have shown; other numbers of processes were not tried"
        return Finding(True, statement, dict(fact))
    statement += ". Reading one: each process adapts on its own share. Reading two: the score is of one set-up"
    return Finding(False, statement, dict(fact), classes=("V18", "V24"), mark=Mark.COMMUNITY)


def _pair(fact: Mapping[str, Any], otherwise: str, classes: tuple[str, ...]) -> Finding:
    largest, noise = float(fact["largest_change_nats"]), float(fact["noise_nats"])
    allowed = max(TOLERANCE_NATS, NOISE_FACTOR * noise)
    statement = (
        f"two runs on {fact['tokens']:,} tokens that differ in {fact['what']}: charges differ by {largest:.1e} nats "
        f"at most, expected {allowed:.0e} at most"
    )
    if largest <= allowed:
        return Finding(True, statement, dict(fact))
    return Finding(
        False,
        f"{statement}; the first is that of token {fact['first_moved']:,}: {otherwise}",
        dict(fact),
        classes=classes,
    )


@check("process.closed", "scored in a closed process", rules.CLOSED, Kind.ARTIFACT)
def artifact_closed(case: Case) -> Finding:
    closure = case.closure
    statement = f"{closure['statement']}. The artifact is data: nothing of the submission was executed"
    if closure["network"]:
        return Finding(True, statement, dict(closure))
    return Finding(None, f"not checked: {statement}", dict(closure))


@check("process.closed", "scored in a closed process", rules.CLOSED, *PROGRAMS)
def program_closed(case: Case) -> Finding:
    closure = case.closure
    if all(closure[name] for name in ("network", "files", "processes")):
        statement = f"{closure['statement']}; the training data is not among the inputs"
        return Finding(True, statement, dict(closure))
    missing = (
        "a machine that allows namespaces: what runs here could reach the network, other files or other processes "
        f"({closure['problem']})"
    )
    return Finding(None, f"not checked: {closure['statement']}", dict(closure), missing)
