"""Tiny predictors of bytes for the power study: honest ones of many kinds, and cheats whose strength is a number.

Each is a function of tokens (N,) int64 -> charges (N - 1,) nats, in a few passes over the array: thousands can be judged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from underpar.data.sample import sample_documents
from underpar.data.tokenizer_base import ByteTokenizer

VOCAB, BOS = 260, 1
Charges = Callable[[np.ndarray], np.ndarray]
Strengthened = Callable[[float], Charges]


def text(split: str, documents: int, length: int) -> np.ndarray:
    """BOS and bytes of the beginnings of some documents, uint16."""
    tokenizer = ByteTokenizer()
    chosen = [document.text[:length] for document in sample_documents(split)][:documents]
    return np.concatenate([np.append([BOS], tokenizer.encode_ids(one)) for one in chosen]).astype(np.uint16)


@cache
def trained() -> np.ndarray:
    """Bigram counts (V, V) of training text: what an artifact holds."""
    counts = np.full((VOCAB, VOCAB), 0.02)
    tokens = text("train", 200, 2000).astype(np.int64)
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1.0)
    return counts


def rows(temperature: float, smoothing: float) -> np.ndarray:
    """A fixed bigram predictor (V, V); rows sum to 1."""
    power = (trained() + smoothing) ** (1.0 / temperature)
    return power / power.sum(axis=1, keepdims=True)


def earlier(keys: np.ndarray) -> np.ndarray:
    """How often each key has occurred before, (N,)."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_first = np.append(True, ordered[1:] != ordered[:-1])
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
    found = np.empty(len(keys), dtype=np.int64)
    found[order] = np.arange(len(keys)) - starts
    return found


def everywhere(keys: np.ndarray) -> np.ndarray:
    """How often each key occurs in the whole stream, (N,): what nobody may know."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return counts[inverse]


def contexts(tokens: np.ndarray, order: int, apart: str = "", width: int = 256) -> np.ndarray:
    """A key of the last `order` tokens before each target, kept apart by document or by window where asked."""
    key = np.zeros(len(tokens) - 1, dtype=np.int64)
    for back in range(order):
        shifted = np.concatenate([np.zeros(back, dtype=np.int64), tokens[: len(tokens) - 1 - back]])
        key = key * VOCAB + shifted
    block = {
        "": 0,
        "document": np.cumsum(tokens[:-1] == BOS),
        "window": np.arange(len(key)) // width,
    }[apart]
    return key * 1_000_003 + block


@dataclass(frozen=True)
class Adaptive:
    """Counts behind each charge, over a fixed predictor: p = (trust * fixed + seen) / (trust + all seen)."""

    fixed: np.ndarray
    trust: float
    order: int
    apart: str = ""

    def parts(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Probability of each target under the fixed part; keys of contexts, keys of pairs; counts are taken from these."""
        context = contexts(tokens, self.order, self.apart)
        pair = context * VOCAB + tokens[1:]
        return self.fixed[tokens[:-1], tokens[1:]], context, pair, earlier(pair)

    def probabilities(self, tokens: np.ndarray) -> np.ndarray:
        fixed, context, _, seen = self.parts(tokens)
        return (self.trust * fixed + seen) / (self.trust + earlier(context))

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        return -np.log(self.probabilities(tokens))


# ------------------------------------------------------------------------------------------------- honest


def random_adaptive(generator: np.random.Generator) -> Adaptive:
    fixed = rows(generator.uniform(0.7, 1.6), generator.uniform(0.01, 1.0))
    apart = str(generator.choice(["", "document", "window"]))
    return Adaptive(fixed, float(np.exp(generator.uniform(0, 4))), int(generator.integers(1, 4)), apart)


def fixed(generator: np.random.Generator) -> Charges:
    """Bigrams at some temperature."""
    table = rows(generator.uniform(0.5, 2.5), generator.uniform(0.0, 2.0))
    return lambda tokens: -np.log(table[tokens[:-1], tokens[1:]])


def adaptive(generator: np.random.Generator) -> Charges:
    """Counts that grow, over all of the text, a document or a window."""
    return random_adaptive(generator)


def mixture(generator: np.random.Generator) -> Charges:
    """Two adaptive predictors, weighted by how much the first has seen."""
    one, other = random_adaptive(generator), random_adaptive(generator)

    def charges(tokens: np.ndarray) -> np.ndarray:
        weight = 1.0 / (2.0 + earlier(contexts(tokens, 2)))
        return -np.log(weight * one.probabilities(tokens) + (1 - weight) * other.probabilities(tokens))

    return charges


def previous_window(generator: np.random.Generator) -> Charges:
    """Weights of three temperatures fitted to the window before."""
    return window_fit(generator, own=False)(float(np.exp(generator.uniform(-3, 1))))


def single_precision(generator: np.random.Generator) -> Charges:
    """Charges from float32 logits."""
    inner = random_adaptive(generator)
    return lambda tokens: inner(tokens).astype(np.float32).astype(np.float64)


def noisy(generator: np.random.Generator) -> Charges:
    """Reductions in another order every time, now and then by a whole tenth: valid, and not repeatable."""
    inner, scale = random_adaptive(generator), 10.0 ** generator.uniform(-7, -2)
    chance = np.random.default_rng(generator.integers(1 << 32))
    spikes = generator.random() < 0.3

    def charges(tokens: np.ndarray) -> np.ndarray:
        noise = np.abs(chance.normal(0, scale, len(tokens) - 1))
        noise += spikes * 0.1 * (chance.random(len(tokens) - 1) < 2e-4)
        return inner(tokens) + noise

    return charges


def overconfident(generator: np.random.Generator) -> Charges:
    """Nearly all probability on what the fixed predictor likes best; the rest is thin, and for some ids nothing."""
    table = rows(0.2, 0.0) * (trained() > 0.03)
    table[table.sum(axis=1) == 0] = 1.0  # after a byte that training text never had
    table = table / table.sum(axis=1, keepdims=True)
    share = generator.choice([0.0, 1e-6, 1e-3])
    table = (1 - share) * table + share / VOCAB

    def charges(tokens: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return -np.log(table[tokens[:-1], tokens[1:]])

    return charges


def wasteful(generator: np.random.Generator) -> Charges:
    """A share of the probability on ids that never come."""
    table, waste = rows(1.0, 0.5), generator.uniform(0.01, 0.3)
    spread = np.zeros(VOCAB)
    spread[[0, 2, 3]] = 1 / 3
    table = (1 - waste) * table + waste * spread
    return lambda tokens: -np.log(table[tokens[:-1], tokens[1:]])


HONEST = (fixed, adaptive, mixture, previous_window, single_precision, noisy, overconfident, wasteful)


# ------------------------------------------------------------------------------------------------- cheats


def whole_text(generator: np.random.Generator, share: float = 1.0) -> Strengthened:
    """V01, V03: counts of the whole text, to come ones included, for a share of the contexts."""
    base, salt = random_adaptive(generator), int(generator.integers(1, 1 << 30)) | 1

    def make(strength: float) -> Charges:
        def charges(tokens: np.ndarray) -> np.ndarray:
            fixed_part, context, pair, seen = base.parts(tokens)
            weight = strength * (((context * salt) >> 7) % 1000 < 1000 * share)
            top = base.trust * fixed_part + seen + weight * everywhere(pair)
            return -np.log(top / (base.trust + earlier(context) + weight * everywhere(context)))

        return charges

    return make


def calibration(generator: np.random.Generator) -> Strengthened:
    """V12: counts of the first 512 tokens, before they are charged."""
    base = random_adaptive(generator)

    def make(strength: float) -> Charges:
        def charges(tokens: np.ndarray) -> np.ndarray:
            first = np.bincount(tokens[1:513], minlength=VOCAB).astype(float)
            first = (first + 0.01) / (first + 0.01).sum()
            share = strength / (1 + strength)
            return -np.log((1 - share) * base.probabilities(tokens) + share * first[tokens[1:]])

        return charges

    return make


def window_fit(generator: np.random.Generator, own: bool = True) -> Strengthened:
    """V02: weights of three temperatures fitted to the window that is charged with them."""
    tables = np.stack([rows(temperature, 0.1) for temperature in (0.6, 1.0, 1.8)])
    width = int(generator.choice([32, 64, 128]))

    def make(strength: float) -> Charges:
        def charges(tokens: np.ndarray) -> np.ndarray:
            tries = tables[:, tokens[:-1], tokens[1:]]
            edges = np.arange(0, tries.shape[1], width)
            cost = -np.add.reduceat(np.log(tries), edges, axis=1)
            weights = np.exp(-strength * (cost - cost.min(axis=0)))
            weights /= weights.sum(axis=0)
            if not own:
                weights = np.concatenate([np.full((3, 1), 1 / 3), weights[:, :-1]], axis=1)
            which = np.arange(tries.shape[1]) // width
            return -np.log((weights[:, which] * tries).sum(axis=0))

        return charges

    return make


def look_ahead(generator: np.random.Generator) -> Strengthened:
    """C1: a proper distribution, bent by the token that comes after the one it predicts."""
    table, following = rows(generator.uniform(0.8, 1.4), 0.2), rows(1.0, 0.2)

    def make(strength: float) -> Charges:
        power = following**strength
        total = table @ power  # (V, V): after token a, before token c

        def charges(tokens: np.ndarray) -> np.ndarray:
            one, two, three = tokens[:-2], tokens[1:-1], tokens[2:]
            bent = table[one, two] * power[two, three] / total[one, three]
            return np.append(-np.log(bent), -np.log(table[tokens[-2], tokens[-1]]))

        return charges

    return make


def target_cache(generator: np.random.Generator) -> Strengthened:
    """V04: a hashed count of context and target added to the probability of the token that came."""
    base, slots = random_adaptive(generator), int(generator.choice([257, 1021, 4093]))

    def make(strength: float) -> Charges:
        def charges(tokens: np.ndarray) -> np.ndarray:
            context = contexts(tokens, 2)
            slot = (context * 31 ^ tokens[1:] * 27_191) % slots
            cached = np.minimum(1.0, earlier(slot) / np.maximum(earlier(context % slots), 1))
            share = strength / (1 + strength)
            return -np.log((1 - share) * base.probabilities(tokens) + share * cached)

        return charges

    return make


def target_gate(generator: np.random.Generator, share: float = 1.0) -> Strengthened:
    """V05: more for the token that came, if it is a letter, at a share of the places."""
    base, salt = random_adaptive(generator), int(generator.integers(1, 1 << 30)) | 1

    def make(strength: float) -> Charges:
        def charges(tokens: np.ndarray) -> np.ndarray:
            probability = base.probabilities(tokens)
            letter = (tokens[1:] >= 101) & (tokens[1:] < 127)
            fires = letter & (((contexts(tokens, 2) * salt) >> 7) % 1000 < 1000 * share)
            return -np.log(np.minimum(1.0, probability * (1 + strength * fires)))

        return charges

    return make


def hindsight(generator: np.random.Generator, share: float = 1.0) -> Strengthened:
    """V07: the cheaper of two predictors, the second one lifted, at a share of the contexts."""
    one, other = random_adaptive(generator), rows(0.6, 0.1)
    salt = int(generator.integers(1, 1 << 30)) | 1

    def make(strength: float) -> Charges:
        def charges(tokens: np.ndarray) -> np.ndarray:
            first, second = one(tokens), -np.log(other[tokens[:-1], tokens[1:]])
            fires = ((contexts(tokens, 2) * salt) >> 7) % 1000 < 1000 * share
            handicap = 4.0 / (1.0 + strength)
            return np.where(fires, np.minimum(first, second + handicap), first)

        return charges

    return make


def scaled(generator: np.random.Generator) -> Strengthened:
    """C2: every probability a little larger."""
    base = random_adaptive(generator)
    return lambda strength: lambda tokens: np.maximum(0.0, base(tokens) - np.log1p(strength))


def floored(generator: np.random.Generator) -> Strengthened:
    """V28: the token that came is lifted to a floor."""
    base = random_adaptive(generator)
    return lambda strength: lambda tokens: np.minimum(base(tokens), -np.log(min(0.5, 1e-6 + 1e-3 * strength)))


def stored(generator: np.random.Generator, held_out: np.ndarray) -> Strengthened:
    """V10: a copy of the text, followed as long as it fits, trusted a little."""
    base, copy = random_adaptive(generator), held_out.astype(np.int64)

    def make(strength: float) -> Charges:
        trust = strength / (1 + strength)

        def charges(tokens: np.ndarray) -> np.ndarray:
            length = min(len(tokens), len(copy))
            fits = np.zeros(len(tokens) - 1)
            fits[: length - 1] = np.cumprod(tokens[: length - 1] == copy[: length - 1]) * trust
            right = np.zeros(len(tokens) - 1)
            right[: length - 1] = tokens[1:length] == copy[1:length]
            return -np.log((1 - fits) * base.probabilities(tokens) + fits * right)

        return charges

    return make
