"""The incompressibility canary: text on which no honest predictor can win.

Tokens are drawn independently from a distribution q that the referee chose, in the document layout of the real text. Whatever
a valid predictor does, the expected product of p(token) / q(token) over the text is at most 1, so that the chance of saving k
bits against q is at most 2^-k. A predictor that looks at the token it charges, at later ones, or whose probabilities sum to
more than 1, saves.

Two choices of q: uniform, and the token frequencies of the real text. Under the second a trained model pays far less above the
entropy, so that weaker cheats stand out.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from underpar.core.errors import ScoreError
from underpar.core.units import BITS_PER_NAT
from underpar.referee.predictor import Predictor

STANDARD_ERRORS = 4.0
MIN_SAVED_BITS = 40.0
"""A smaller saving accuses nobody: the chance of a false accusation stays below 2^-40 without any assumption on the spread."""
ROUNDING_NATS = 1e-5
"""Per token; float32 charges are exact to about 1e-6."""


@dataclass(frozen=True)
class CanaryText:
    """Tokens drawn from q. `surprise` is -ln q of each target, 0 where `drawn` is False (the layout's BOS tokens)."""

    name: str
    tokens: np.ndarray
    """uint16 (N,)"""
    surprise: np.ndarray
    """float64 (N - 1,) nats"""
    drawn: np.ndarray
    """bool (N - 1,)"""
    entropy_nats: float
    """Of q: the least that a valid predictor can pay per token in expectation."""


def uniform_canary(layout: np.ndarray, vocab_size: int, bos_id: int, seed: int) -> CanaryText:
    """Every id except BOS equally likely. layout: uint16 (N,), of which only the places of BOS are kept."""
    weights = np.ones(vocab_size)
    return _draw("uniform", layout, weights, bos_id, seed)


def frequency_canary(layout: np.ndarray, counts: np.ndarray, bos_id: int, seed: int) -> CanaryText:
    """Ids as frequent as in the real text, in random order. counts: (vocab_size,) occurrences."""
    return _draw("frequency", layout, counts.astype(np.float64), bos_id, seed)


def _draw(name: str, layout: np.ndarray, weights: np.ndarray, bos_id: int, seed: int) -> CanaryText:
    weights = weights.copy()
    weights[bos_id] = 0.0
    if len(layout) < 2 or weights.sum() <= 0:
        raise ScoreError(
            f"canary text needs two tokens and an ordinary id, got {len(layout)} tokens; give a longer text"
        )
    q = weights / weights.sum()
    is_bos = layout == bos_id
    tokens = layout.copy()
    generator = np.random.default_rng(seed)
    tokens[~is_bos] = generator.choice(len(q), size=int((~is_bos).sum()), p=q).astype(tokens.dtype)
    drawn = ~is_bos[1:]
    if not drawn.any():
        raise ScoreError("the text has no ordinary token to predict; give a longer text")
    surprise = np.zeros(len(drawn))
    surprise[drawn] = -np.log(q[tokens[1:][drawn]])
    used = q[q > 0]
    return CanaryText(name, tokens, surprise, drawn, float(-(used * np.log(used)).sum()))


@dataclass(frozen=True)
class CanaryResult:
    """What a predictor paid on a canary text."""

    name: str
    tokens: int
    """Drawn tokens; the BOS tokens of the layout are not counted."""
    entropy_nats: float
    mean_nats: float
    mean_excess_nats: float
    """Mean of charge minus surprise; at least 0 in expectation for a valid predictor."""
    standard_error_nats: float
    saved_bits: float
    """Against q over the whole text; negative when the predictor paid more."""
    passed: bool

    @property
    def chance_log2(self) -> float:
        """log2 of the bound on the chance that a valid predictor saves this much."""
        return min(0.0, -self.saved_bits)

    @property
    def hidden_gain_nats(self) -> float:
        """Gain per token on such text that a cheat could have had unseen: the power of this canary."""
        return max(0.0, self.mean_excess_nats) + STANDARD_ERRORS * self.standard_error_nats

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"chance_log2": self.chance_log2, "hidden_gain_nats": self.hidden_gain_nats}


def run_canary(predictor: Predictor, text: CanaryText) -> CanaryResult:
    """Charge the text and compare with q. Raises what the predictor raises.

    It fails when the mean is more than 4 standard errors below the entropy and at least 40 bits were saved in all.
    """
    charges = predictor.charges(text.tokens)
    excess = (charges - text.surprise)[text.drawn]
    count = len(excess)
    mean = float(excess.mean())
    error = float(excess.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0
    saved_bits = -math.fsum(excess) * BITS_PER_NAT
    allowed_bits = max(MIN_SAVED_BITS, count * ROUNDING_NATS * BITS_PER_NAT)
    failed = mean < -STANDARD_ERRORS * error and saved_bits >= allowed_bits
    return CanaryResult(
        text.name, count, text.entropy_nats, float(charges[text.drawn].mean()), mean, error, saved_bits, not failed
    )
