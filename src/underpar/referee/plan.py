"""How much of each probe: chosen for a budget of seconds from the measured cost of a pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from underpar.core.errors import DataError
from underpar.referee.predictor import Predictor, Replayable, Scalable, Warmable, is_stepwise
from underpar.referee.probes.screen import CHECKS, rounds_of
from underpar.referee.probes.sweep import screened_ids

SAFETY = 0.85
"""Share of the budget that is planned for: passes over other text may cost more."""
SHORT_TOKENS, LONG_TOKENS = 256, 2048
"""Streams whose time tells what starting and what a token costs."""
CANARIES = ("uniform", "text", "frequency")
"""In the order in which a small budget takes them."""


@dataclass(frozen=True)
class Plan:
    """How much of each probe."""

    segment_tokens: int = 512
    """Length of the stream, from the start of the held-out text, that is altered and repeated."""
    flip_trials: int = 2
    canaries: tuple[str, ...] = CANARIES[:1]
    canary_tokens: int = 1024
    sweep_positions: int = 0
    sweep_ids: int = 0
    """Ids charged at each position; at least the vocabulary is all of it."""
    screen_positions: int = 0
    """Positions at which the likeliest ids are charged, many in one pass, to choose where the sweep looks."""
    swaps: int = 0
    """Pairs of documents that are exchanged."""
    boundaries: int = 0
    """Ends of documents that are altered."""
    replay: bool = False
    warm_up: bool = False
    world: int = 1
    """Processes to compare with one; 1 leaves it out."""
    whole_stream: bool = False
    """Charge all of the held-out text."""
    whole_flips: int = 0
    """Alterations of the whole stream."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"canaries": list(self.canaries)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Plan:
        """Raises DataError on another version's plan."""
        try:
            return Plan(**(data | {"canaries": tuple(data["canaries"])}))
        except (TypeError, KeyError) as problem:
            raise DataError(f"not a plan of this version: {problem}; leave out --plan to make a new one") from None


@dataclass(frozen=True)
class Cost:
    """Seconds of a pass over a stream: what starting it takes, and what a token takes."""

    start_seconds: float
    token_seconds: float
    fresh_seconds: float = 0.0
    """What starting the program anew takes on top."""

    def of(self, tokens: float) -> float:
        """Seconds of one pass."""
        return self.start_seconds + self.token_seconds * tokens

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Abilities:
    """What a predictor lets the referee do, and how much text there is."""

    tokens: int
    vocab_size: int
    has_documents: bool
    can_replay: bool = False
    can_warm_up: bool = False
    can_scale: bool = False
    is_stepwise: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"can_look_ahead": not self.is_stepwise}

    @staticmethod
    def of(predictor: Predictor, tokens: np.ndarray) -> Abilities:
        """Of a predictor and its held-out stream."""
        bos = predictor.bos_id
        return Abilities(
            tokens=len(tokens),
            vocab_size=predictor.vocab_size,
            has_documents=bos is not None and int((tokens == bos).sum()) >= 3,
            can_replay=isinstance(predictor, Replayable),
            can_warm_up=isinstance(predictor, Warmable) and predictor.warms_up,
            can_scale=isinstance(predictor, Scalable) and predictor.takes_world,
            is_stepwise=is_stepwise(predictor),
        )


def measure_cost(predictor: Predictor, tokens: np.ndarray, budget_seconds: float) -> Cost:
    """Time a short and, where that was quick, a longer pass. Raises what the predictor raises."""
    short = tokens[:SHORT_TOKENS]
    first = _seconds(lambda: predictor.charges(short))
    anew = _seconds(lambda: predictor.fresh_charges(short)) if isinstance(predictor, Replayable) else 0.0
    long = tokens[:LONG_TOKENS]
    if len(long) <= len(short) or first > budget_seconds / 20:
        return Cost(0.0, first / len(short), max(0.0, anew - first))
    second = _seconds(lambda: predictor.charges(long))
    token = max(0.0, second - first) / (len(long) - len(short))
    return Cost(max(1e-4, first - token * len(short)), max(token, 1e-9), max(0.0, anew - first))


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def predicted_seconds(plan: Plan, cost: Cost, can: Abilities) -> float:
    """What a plan takes."""
    segment = cost.of(min(plan.segment_tokens, can.tokens))
    total = (2 + 2 * plan.flip_trials) * segment
    total += len(plan.canaries) * cost.of(min(plan.canary_tokens, can.tokens))
    if can.is_stepwise:
        total += segment if plan.sweep_positions else 0.0
    else:
        half = cost.of(plan.segment_tokens / 2)
        total += plan.sweep_positions * min(plan.sweep_ids, can.vocab_size) * half
        if plan.screen_positions:
            passes = rounds_of(plan.screen_positions, min(plan.segment_tokens, can.tokens)) * screened_ids(
                can.vocab_size
            )
            total += passes * (segment + CHECKS * half)
    total += ((2 + plan.swaps) if plan.swaps else 0) * segment
    total += ((2 + 2 * plan.boundaries) if plan.boundaries else 0) * segment
    total += plan.replay * (segment + cost.fresh_seconds) + 2 * plan.warm_up * segment + 2 * (plan.world > 1) * segment
    whole = cost.of(can.tokens)
    return total + whole * (plan.whole_stream + (1 + plan.whole_flips if plan.whole_flips else 0))


def make_plan(budget_seconds: float, cost: Cost, can: Abilities) -> Plan:
    """The strongest set of probes that fits: every step that still fits is taken, in the order of what it finds.

    The least plan is made even when it does not fit.
    """
    limit = SAFETY * budget_seconds
    plan = Plan(segment_tokens=min(512, can.tokens), canary_tokens=min(1024, can.tokens))
    was = None
    while plan != was:
        was = plan
        for step in STEPS:
            more = step(plan, can)
            if predicted_seconds(more, cost, can) <= limit:
                plan = more
    return plan


def _first_sweep(plan: Plan, can: Abilities) -> Plan:
    """The likeliest ids and a sample at one position: only an excess shows, but no step costs less."""
    return replace(plan, sweep_positions=max(1, plan.sweep_positions), sweep_ids=max(64, plan.sweep_ids))


def _wider_sweep(plan: Plan, can: Abilities) -> Plan:
    return replace(plan, sweep_ids=min(can.vocab_size, max(256, plan.sweep_ids))) if plan.sweep_positions else plan


def _full_sweep(plan: Plan, can: Abilities) -> Plan:
    return replace(plan, sweep_ids=can.vocab_size) if plan.sweep_positions else plan


def _screen(plan: Plan, can: Abilities) -> Plan:
    """Pays from a few positions on; a predictor that says its distributions is read at every position anyway."""
    if not plan.sweep_positions or can.is_stepwise:
        return plan
    return replace(plan, screen_positions=min(256, max(8, 2 * plan.screen_positions)))


def _flip_the_whole(plan: Plan, can: Abilities) -> Plan:
    """A predictor that gets token by token cannot look ahead; others are altered over their whole length as well."""
    if not plan.whole_stream or can.is_stepwise:
        return plan
    return replace(plan, whole_flips=min(2, plan.whole_flips + 1))


def _more_positions(plan: Plan, can: Abilities) -> Plan:
    return replace(plan, sweep_positions=min(16, plan.sweep_positions + 1)) if plan.sweep_positions else plan


STEPS: tuple[Callable[[Plan, Abilities], Plan], ...] = (
    lambda plan, can: replace(plan, whole_stream=True),
    _first_sweep,
    _wider_sweep,
    _full_sweep,
    lambda plan, can: replace(plan, canaries=CANARIES[: min(len(CANARIES), len(plan.canaries) + 1)]),
    lambda plan, can: replace(plan, replay=can.can_replay),
    lambda plan, can: replace(plan, flip_trials=min(1 if can.is_stepwise else 24, plan.flip_trials + 2)),
    lambda plan, can: replace(plan, swaps=0 if can.is_stepwise else 2, boundaries=2) if can.has_documents else plan,
    lambda plan, can: replace(plan, warm_up=can.can_warm_up),
    lambda plan, can: replace(plan, world=2 if can.can_scale else 1),
    _screen,
    lambda plan, can: replace(plan, canary_tokens=min(can.tokens, 65_536, 2 * plan.canary_tokens)),
    lambda plan, can: replace(plan, segment_tokens=min(can.tokens, 4096, 2 * plan.segment_tokens)),
    _more_positions,
    _flip_the_whole,
)
"""Each way of doing a little more, the most useful first."""


def standard_plan(segment_tokens: int, canary_tokens: int, sweep_positions: int, can: Abilities) -> Plan:
    """What an artifact gets when no budget is named: a few seconds on a laptop for a small model."""
    return Plan(
        segment_tokens=segment_tokens,
        flip_trials=6,
        canaries=CANARIES,
        canary_tokens=canary_tokens,
        sweep_positions=sweep_positions,
        sweep_ids=can.vocab_size,
        swaps=1 if can.has_documents else 0,
        boundaries=1 if can.has_documents else 0,
        replay=can.can_replay,
        warm_up=can.can_warm_up,
        world=2 if can.can_scale else 1,
        whole_stream=True,
    )
