"""Judging a predictor of this process: the probes of a small plan, then the checks, as for a program in a jail."""

from dataclasses import replace

import numpy as np

from underpar.referee.case import ByteLimit, Case, Kind
from underpar.referee.checks import run_checks
from underpar.referee.claim import Claim
from underpar.referee.examine import run_probes
from underpar.referee.ledger import add_up
from underpar.referee.measurement import Measurement, plain
from underpar.referee.plan import Plan
from underpar.referee.predictor import Predictor
from underpar.referee.probes.memory import longest_free_run
from underpar.referee.verdict import Verdict

PLAN = Plan(
    segment_tokens=600,
    flip_trials=8,
    canaries=("uniform", "text", "frequency"),
    canary_tokens=3000,
    sweep_positions=3,
    sweep_ids=260,
    swaps=2,
    boundaries=2,
    warm_up=True,
    whole_stream=True,
)
OPEN = {"network": True, "files": True, "processes": True, "problem": "", "statement": "in this process"}


def judged(predictor: Predictor, tokens: np.ndarray, seed: int = 7, plan: Plan = PLAN) -> Verdict:
    """The verdict on a predictor."""
    found = Measurement()
    charges = found.stage("score", lambda: predictor.charges(tokens))
    if charges is not None:
        found.facts["score"] = add_up(charges, tokens, predictor.bos_id, None).to_json()
        found.fact("free_run", lambda: longest_free_run(charges, tokens))
        run_probes(predictor, tokens, plan, seed, found)
    facts, errors = plain(found.facts), plain(found.errors)
    case = Case(Claim(), ByteLimit(), facts, errors, 1e-4, kind=Kind.POSITIONS, closure=OPEN)
    return Verdict(run_checks(case))


def failed(verdict: Verdict) -> dict[str, tuple[str, ...]]:
    """Check -> classes that it names, of what failed."""
    return {check.id: check.classes for check in verdict.checks if check.passed is False}


QUICK = replace(
    PLAN, segment_tokens=400, flip_trials=5, canaries=("uniform",), canary_tokens=1500, sweep_positions=4, swaps=0
)
