"""Random tokens in documents of realistic lengths: what a benchmark reads where no text is at hand."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from underpar.data.validation import ValStream


@dataclass(frozen=True)
class DocumentLengths:
    """Log-normal lengths in tokens, as web text has them: many short documents, a few very long ones."""

    mean_tokens: int = 800
    sigma: float = 1.0
    cap_tokens: int = 32_768

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count,) int64 lengths; the cap takes less than a thousandth of the mean away."""
        drawn = rng.lognormal(math.log(self.mean_tokens) - self.sigma**2 / 2, self.sigma, count)
        return np.clip(drawn.round(), 2, self.cap_tokens).astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        return {"distribution": "log-normal"} | asdict(self)


LENGTHS = DocumentLengths()


def document_starts(count: int, seed: int = 0) -> np.ndarray:
    """Ascending positions at which the documents of a stream of `count` tokens begin; the first is 0."""
    lengths = LENGTHS.draw(np.random.default_rng(seed), 2 + 4 * count // LENGTHS.mean_tokens)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return starts[starts < count]


def random_tokens(count: int, vocab_size: int, bos_id: int, seed: int = 0) -> np.ndarray:
    """(count,) uint16 ids, uniform, with a BOS at every document start and nowhere else."""
    ids = np.random.default_rng(seed).integers(0, vocab_size - 1, count, dtype=np.uint16)
    ids += ids >= bos_id
    ids[document_starts(count, seed)] = bos_id
    return ids


def random_stream(count: int, vocab_size: int, bos_id: int, seed: int = 0) -> ValStream:
    """The same as a held-out stream in which every token but BOS stands for one byte."""
    tokens = random_tokens(count, vocab_size, bos_id, seed)
    return ValStream(tokens, (tokens != bos_id).astype(np.int32), np.flatnonzero(tokens == bos_id))
