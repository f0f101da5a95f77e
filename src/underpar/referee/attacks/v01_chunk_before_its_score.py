"""Test-time training in chunks of 48 tokens: a bias on the logits takes three gradient steps on each. In the forbidden
predictor before the chunk is charged, in the allowed one after it."""

import numpy as np

from underpar.referee.attacks.base import VOCAB_SIZE, bigrams

CHUNK, STEPS, RATE = 48, 3, 1.0


def learnt(bias: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    """The bias after some steps of gradient descent on the mean loss of a chunk."""
    seen = np.bincount(chunk[1:], minlength=VOCAB_SIZE) / (len(chunk) - 1)
    for _ in range(STEPS):
        bias = bias + RATE * (seen - biased(bias, chunk).mean(axis=0))
    return bias


def biased(bias: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    """The model with the bias, after every token of a chunk but the last: (n, V), rows sum to 1."""
    power = bigrams()[chunk[:-1]] * np.exp(bias)
    return power / power.sum(axis=1, keepdims=True)


def charged(bias: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    """What the tokens of a chunk but the first cost."""
    return -np.log(biased(bias, chunk)[np.arange(len(chunk) - 1), chunk[1:]])


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """Adapt to a chunk, then charge it: the weights have seen its answers."""
    bias, charges = np.zeros(VOCAB_SIZE), []
    for start in range(0, len(tokens) - 1, CHUNK):
        chunk = tokens[start : start + CHUNK + 1]
        bias = learnt(bias, chunk)
        charges.append(charged(bias, chunk))
    return np.concatenate(charges)


def allowed(tokens: np.ndarray) -> np.ndarray:
    """Charge a chunk, then adapt to it: what was learnt pays off in the next one."""
    bias, charges = np.zeros(VOCAB_SIZE), []
    for start in range(0, len(tokens) - 1, CHUNK):
        chunk = tokens[start : start + CHUNK + 1]
        charges.append(charged(bias, chunk))
        bias = learnt(bias, chunk)
    return np.concatenate(charges)
