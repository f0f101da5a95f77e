"""Mixing weights of three temperatures are fitted to a window of 64 tokens: in the forbidden predictor to the window
that is charged with them, in the allowed one to the window before."""

import numpy as np

from underpar.referee.attacks.base import bigrams_at, pay

WINDOW = 64
TEMPERATURES = (0.7, 1.0, 1.5)


def fitted(window: np.ndarray) -> np.ndarray:
    """Weights (3,) that favour the temperatures under which a window, charges (3, tokens), was cheap."""
    total = window.sum(axis=1)
    weights = np.exp(-0.2 * (total - total.min()))
    return weights / weights.sum()


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """Every window with the weights that suit it."""
    tries = np.stack([pay(bigrams_at(temperature), tokens) for temperature in TEMPERATURES])
    charges = []
    for start in range(0, tries.shape[1], WINDOW):
        window = tries[:, start : start + WINDOW]
        charges.append(-np.log(fitted(window) @ np.exp(-window)))
    return np.concatenate(charges)


def allowed(tokens: np.ndarray) -> np.ndarray:
    """Every window with the weights that would have suited the one before it."""
    tries = np.stack([pay(bigrams_at(temperature), tokens) for temperature in TEMPERATURES])
    charges, weights = [], np.full(3, 1 / 3)
    for start in range(0, tries.shape[1], WINDOW):
        window = tries[:, start : start + WINDOW]
        charges.append(-np.log(weights @ np.exp(-window)))
        weights = fitted(window)
    return np.concatenate(charges)
