"""A local operation mixes in the token before the last. The forbidden predictor lets it reach over the start of a
document into the one before; the allowed one stops it there. Otherwise documents are apart in both."""

import numpy as np

from underpar.referee.attacks.base import BOS, bigrams


def forbidden(tokens: np.ndarray) -> np.ndarray:
    """The look-back knows no documents."""
    before = np.concatenate([[BOS], tokens[:-2]])
    mixed = 0.7 * bigrams()[tokens[:-1], tokens[1:]] + 0.3 * bigrams()[before, tokens[1:]]
    return -np.log(mixed)


def allowed(tokens: np.ndarray) -> np.ndarray:
    """Where the last token starts a document there is nothing to look back to."""
    before = np.where(tokens[:-1] == BOS, BOS, np.concatenate([[BOS], tokens[:-2]]))
    mixed = 0.7 * bigrams()[tokens[:-1], tokens[1:]] + 0.3 * bigrams()[before, tokens[1:]]
    return -np.log(mixed)
