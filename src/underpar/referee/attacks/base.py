"""What the examples share: an alphabet and a fixed model of it, the stand-in for a trained artifact."""

from functools import cache

import numpy as np

VOCAB_SIZE, BOS, FIRST_BYTE = 260, 1, 4
PROSE = (
    "A model that predicts the next byte of a text is a way to store the text in fewer bits. It is given what came before, "
    "it says how likely each byte is to come next, and it pays for the byte that came. What it may know is its own weights "
    "and the past; what it may not know is the byte it pays for, or any byte after it. The rules of the game are there to "
    "keep these apart, and every trick in this folder is a way of mixing them up again. "
)


@cache
def bigrams() -> np.ndarray:
    """Probabilities (V, V) of a byte after a byte, fitted to PROSE once and for all: the artifact. Rows sum to 1."""
    ids = np.frombuffer(PROSE.encode(), dtype=np.uint8).astype(np.int64) + FIRST_BYTE
    seen = np.bincount(ids, minlength=VOCAB_SIZE) + 0.05
    counts = np.tile(4.0 * seen / seen.sum(), (VOCAB_SIZE, 1))
    np.add.at(counts, (ids[:-1], ids[1:]), 1.0)
    return counts / counts.sum(axis=1, keepdims=True)


def pay(probabilities: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Charges, float64 (N - 1,) nats, of a table (V, V) of probabilities after each token."""
    return -np.log(probabilities[tokens[:-1], tokens[1:]])


def is_letter(token: int) -> bool:
    """Whether a token is an ASCII letter."""
    return chr(token - FIRST_BYTE).isalpha() if FIRST_BYTE <= token < FIRST_BYTE + 128 else False


@cache
def bigrams_at(temperature: float) -> np.ndarray:
    """The artifact at another temperature; rows sum to 1."""
    power = bigrams() ** (1.0 / temperature)
    return power / power.sum(axis=1, keepdims=True)


def pairs(tokens: np.ndarray) -> list[tuple[int, int]]:
    """(token, the one after it), in order."""
    return list(zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True))
