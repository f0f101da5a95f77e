"""The probes of a plan on one predictor, in the order from cheap and telling to dear. Facts only; checks judge them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from underpar.referee.measurement import Measurement
from underpar.referee.plan import Abilities, Plan
from underpar.referee.predictor import Predictor, Replayable, Scalable, Stepwise, Sweepable, Warmable, is_stepwise
from underpar.referee.probes import canary_text, process
from underpar.referee.probes.arrangement import MOST_DOCUMENTS, MOST_OF_THE_WHOLE, document_arrangement
from underpar.referee.probes.canary import CanaryResult, run_canary
from underpar.referee.probes.documents import document_isolation, document_order, document_segment
from underpar.referee.probes.flip import CUT_TOLERANCE_NATS, FlipResult, future_flip, tolerance
from underpar.referee.probes.screen import screen
from underpar.referee.probes.sweep import (
    SUM_TOLERANCE,
    SweepResult,
    likely_ids,
    screened_ids,
    sweep_by_charging,
    sweep_choice,
    sweep_distributions,
    sweep_ids,
    target_sweep,
)


def run_probes(predictor: Predictor, tokens: np.ndarray, plan: Plan, seed: int, found: Measurement) -> None:
    """Probe a predictor on the beginning of its held-out stream, uint16 (N,). Every probe has a seed of its own."""
    found.facts["abilities"] = Abilities.of(predictor, tokens).to_json()
    segment = tokens[: min(plan.segment_tokens, len(tokens))]
    flip: FlipResult | None = found.fact("flip", lambda: future_flip(predictor, segment, seed + 2, plan.flip_trials))
    for number, name in enumerate(plan.canaries):
        draw = partial(_canary_text, name, tokens, plan.canary_tokens, predictor.bos_id, seed + 10 + number)
        found.fact(f"canary_{name}", partial(_canary, predictor, draw))
    if plan.sweep_positions:
        found.fact("sweep", lambda: _sweep(predictor, segment, plan, seed + 3))
    documents = document_segment(tokens, predictor.bos_id, len(segment))
    if plan.swaps:
        found.fact("order", lambda: document_order(predictor, documents, seed + 4, plan.swaps))
    if plan.boundaries:
        found.fact("isolation", lambda: document_isolation(predictor, documents, seed + 5, plan.boundaries))
    if flip is not None:
        _process_pairs(predictor, segment, plan, seed + 6, flip.noise_nats, found)
        if plan.world > 1 and isinstance(predictor, Scalable):
            found.fact("world", lambda: process.world_size(predictor, documents, flip.noise_nats, plan.world))
    if plan.whole_flips and len(tokens) > len(segment):
        found.fact("flip_whole", lambda: future_flip(predictor, tokens, seed + 7, plan.whole_flips))
    _arrangements(predictor, tokens, documents, seed + 8, found)


def _arrangements(
    predictor: Predictor, tokens: np.ndarray, documents: np.ndarray, seed: int, found: Measurement
) -> None:
    """Where something moved that should not have: whether another order of the documents explains it."""
    flips = [found.facts[name] for name in ("flip", "flip_whole") if name in found.facts]
    moved = any(trial["change_nats"] > tolerance(flip["noise_nats"]) for flip in flips for trial in flip["trials"])
    shifted = found.facts.get("order", {}).get("earlier_change_nats", 0.0)
    if is_stepwise(predictor) or not (moved or shifted > CUT_TOLERANCE_NATS):
        return
    explained = found.fact(
        "arrangement", lambda: document_arrangement(predictor, documents, seed, MOST_DOCUMENTS, tokens)
    )
    trials = [trial for trial in found.facts.get("flip_whole", {}).get("trials", ()) if trial["moved"]]
    if trials and explained is not None and explained.keeps_an_order:
        places = [place for trial in trials for place in (trial["position"], trial["first_moved"] - 1)]
        found.fact(
            "arrangement_whole",
            lambda: document_arrangement(predictor, tokens, seed + 1, MOST_OF_THE_WHOLE, tokens, places),
        )


def _process_pairs(
    predictor: Predictor, segment: np.ndarray, plan: Plan, seed: int, noise: float, found: Measurement
) -> None:
    if plan.replay and isinstance(predictor, Replayable):
        base, bos = partial(predictor.charges, segment), predictor.bos_id
        found.fact("replay", lambda: process.replay(predictor, segment, base(), noise, seed, bos))
    if plan.warm_up and isinstance(predictor, Warmable):
        found.fact("warm_up", lambda: process.warm_up(predictor, segment, noise, seed))


def _canary(predictor: Predictor, draw: Callable[[], canary_text.CanaryText]) -> CanaryResult:
    return run_canary(predictor, draw())


def _canary_text(name: str, tokens: np.ndarray, length: int, bos_id: int | None, seed: int) -> canary_text.CanaryText:
    layout = tokens[: min(length + 1, len(tokens))]
    counts = np.bincount(tokens)
    if name == "text":
        return canary_text.text_canary(layout, tokens, counts, bos_id, seed)
    make = {"uniform": canary_text.uniform_canary, "frequency": canary_text.frequency_canary}[name]
    return make(layout, counts, bos_id, seed)


def _sweep(predictor: Predictor, segment: np.ndarray, plan: Plan, seed: int) -> SweepResult:
    if isinstance(predictor, Sweepable):
        return target_sweep(predictor, segment[: plan.sweep_positions])
    if is_stepwise(predictor) and isinstance(predictor, Stepwise):
        return sweep_distributions(predictor, segment)
    generator = np.random.default_rng(seed)
    base = predictor.charges(segment)
    positions, at_random = sweep_choice(segment, base, plan.sweep_positions, predictor.bos_id, generator)
    ids = partial(sweep_ids, segment, vocab_size=predictor.vocab_size, count=plan.sweep_ids, generator=generator)
    if not plan.screen_positions:
        return sweep_by_charging(predictor, segment, positions, at_random, ids, base)
    count = screened_ids(predictor.vocab_size)
    suspects = screen(
        predictor,
        segment,
        plan.screen_positions,
        partial(likely_ids, segment, count=count),
        1 + SUM_TOLERANCE,
        generator,
    )
    pointed = [one.position for one in suspects if one.position not in positions[:at_random]]
    chosen = [*positions[:at_random], *pointed][: len(positions)]
    found = sweep_by_charging(predictor, segment, chosen, at_random, ids, base)
    proven = max((one.proven for one in suspects), default=0.0)
    return replace(found, screened=len(suspects), screened_ids=count, largest_screened=proven)
