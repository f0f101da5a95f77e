"""The incompressibility canary: text on which no honest predictor can win.

The referee draws tokens from a distribution q that it knows and the predictor does not control: r_t = p_t(x_t) / q_t(x_t) has
an expected value of at most 1 given everything before it. Whoever looks at the token that is charged, at later ones, or
has probabilities that sum to more than 1, has a larger one.

The test is a wager. A fraction b of a purse is staked on "r is more than 1" at every token, the rest is kept: the purse is
multiplied by 1 + b (r - 1). Against a valid predictor no such purse grows in expectation, so that the chance of it ever
reaching 2^k is at most 2^-k, whatever the predictor and however noisy. Several fractions share the stake: b = 1 counts the bits
that were saved against q, small ones find a small advantage under a large spread. Sources: Ville's inequality; the
incompressibility argument of the game's discussions.

Three choices of q, in the document layout of the real text: uniform over the ids that occur; their frequencies; and
a trigram model of the text, whose draws look like text and on which a trained model pays little above the entropy.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from underpar.core.units import BITS_PER_NAT
from underpar.referee.predictor import Predictor
from underpar.referee.probes.canary_text import CanaryText

EVIDENCE_BITS = 40.0
"""An honest predictor is accused with a chance below 2^-40."""
SUM_SLACK = 1e-3
"""Probabilities may sum to this much more than 1: what rounding explains, and what the sweep allows."""
STAKES = tuple(2.0**-power for power in range(13))
MAX_CHARGE_NATS = 1e6
"""An infinite charge counts as this."""


@dataclass(frozen=True)
class CanaryResult:
    """What a predictor paid on a canary text."""

    name: str
    tokens: int
    """Drawn tokens that were charged; the BOS tokens of the layout are not counted."""
    entropy_nats: float
    """Of q per token: the least that a valid predictor can pay in expectation."""
    mean_nats: float
    mean_excess_nats: float
    """Mean of charge minus surprise; at least 0 in expectation for a valid predictor."""
    standard_error_nats: float
    saved_bits: float
    """Against q over the whole text; negative when the predictor paid more."""
    purse_log2: tuple[float, ...]
    """log2 of what each stake of `STAKES` has become."""
    hidden_gain_nats: float
    """The power of this canary: the smallest gain per token on such text, taken off every charge, that it would have seen."""

    @property
    def evidence_bits(self) -> float:
        """log2 of the whole purse; a valid predictor reaches k with a chance of at most 2^-k."""
        return evidence_bits(self.purse_log2)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"purse_log2": list(self.purse_log2), "evidence_bits": self.evidence_bits}


def evidence_bits(purse_log2: tuple[float, ...] | list[float]) -> float:
    """log2 of the mean of 2^each."""
    most = max(purse_log2)
    return most + math.log2(math.fsum(2.0 ** (one - most) for one in purse_log2) / len(purse_log2))


def run_canary(predictor: Predictor, text: CanaryText) -> CanaryResult:
    """Charge the text and compare with q. Raises what the predictor raises."""
    charges = np.minimum(predictor.charges(text.tokens), MAX_CHARGE_NATS)
    asked = text.drawn & ~np.isnan(charges)
    excess = (charges - text.surprise)[asked]
    count = len(excess)
    error = float(excess.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0
    return CanaryResult(
        name=text.name,
        tokens=count,
        entropy_nats=text.entropy_nats,
        mean_nats=float(charges[asked].mean()),
        mean_excess_nats=float(excess.mean()),
        standard_error_nats=error,
        saved_bits=-math.fsum(excess) * BITS_PER_NAT,
        purse_log2=purses(excess),
        hidden_gain_nats=_hidden_gain(excess),
    )


def purses(excess: np.ndarray) -> tuple[float, ...]:
    """log2 of the purse of every stake after wagers on charges that exceed the surprise by `excess` nats, (N,)."""
    log_ratio = -excess - math.log1p(SUM_SLACK)
    ratio = np.exp(np.minimum(log_ratio, 700.0))
    found = [float(log_ratio.sum() * BITS_PER_NAT)]
    found += [float(np.log1p(stake * (ratio - 1.0)).sum() * BITS_PER_NAT) for stake in STAKES[1:]]
    return tuple(found)


def _hidden_gain(excess: np.ndarray) -> float:
    """The smallest number of nats off every charge that makes the evidence sufficient, by bisection to 0.1 %."""
    low, high = 0.0, 1.0
    while evidence_bits(purses(excess - high)) < EVIDENCE_BITS and high < 1e4:
        low, high = high, 2 * high
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        if evidence_bits(purses(excess - middle)) < EVIDENCE_BITS:
            low = middle
        else:
            high = middle
    return high
