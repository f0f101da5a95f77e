"""Compilation is warmed up with a few steps of training. The forbidden predictor keeps what the steps left behind;
the allowed one puts it back."""

import numpy as np

from underpar.referee.attacks.base import bigrams, pay


class Forbidden:
    """The warm-up changes the weights."""

    def __init__(self) -> None:
        self.counts = 20.0 * bigrams()

    def warm_up(self, tokens: np.ndarray) -> None:
        """A step of training on whatever tokens are at hand."""
        np.add.at(self.counts, (tokens[:-1], tokens[1:]), 0.1)

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        """Charges with the counts as they are."""
        return pay(self.counts / self.counts.sum(axis=1, keepdims=True), tokens)


class Allowed(Forbidden):
    """The warm-up is undone, and nothing of its tokens remains."""

    def warm_up(self, tokens: np.ndarray) -> None:
        """The same step, from which the counts are put back."""
        kept = self.counts.copy()
        super().warm_up(tokens)
        self.counts = kept


forbidden, allowed = Forbidden, Allowed
