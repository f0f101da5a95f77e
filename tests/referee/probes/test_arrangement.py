"""Documents in another order than the text's: what keeps an order is disputed, what reads ahead of it is invalid."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from underpar.data.sample import sample_documents
from underpar.referee.attacks.base import BOS, VOCAB_SIZE, bigrams, bigrams_at
from underpar.referee.predictor import CallablePredictor
from underpar.referee.probes.arrangement import document_bounds, find_circle, lengths_bits
from underpar.referee.verdict import Ruling, Verdict

from ..attacks.judging import failed, judged

Bounds = list[tuple[int, int]]
Order = Callable[[np.ndarray, Bounds], Sequence[int]]


@pytest.fixture(scope="module")
def uneven() -> np.ndarray:
    """Twelve documents of 30 to 140 tokens."""
    texts = [document.text for document in sample_documents("val")]
    lengths = [60, 30, 90, 120, 45, 140, 75, 33, 100, 52, 110, 64]
    parts = [
        [BOS, *(byte + 4 for byte in text.encode()[: size - 1])] for text, size in zip(texts, lengths, strict=False)
    ]
    return np.concatenate(parts).astype(np.uint16)


def longest_first(tokens: np.ndarray, bounds: Bounds) -> list[int]:
    # Targets are counted: a start at the very end of the stream begins nothing.
    last = len(tokens) - 1
    return sorted(range(len(bounds)), key=lambda n: (min(bounds[n][0], last) - min(bounds[n][1], last), n))


def backwards(tokens: np.ndarray, bounds: Bounds) -> list[int]:
    return list(range(len(bounds)))[::-1]


def dearest_first(tokens: np.ndarray, bounds: Bounds) -> list[int]:
    """By what they cost without learning: an order that only who has read them can know."""
    plain = -np.log(bigrams()[tokens[:-1], tokens[1:]])
    return sorted(range(len(bounds)), key=lambda n: -float(plain[slice(*_targets(tokens, bounds[n]))].sum()))


def _targets(tokens: np.ndarray, bound: tuple[int, int]) -> tuple[int, int]:
    return bound[0], min(bound[1], len(tokens) - 1)


def learning(order: Order, first_epochs: Callable[[list[int]], list[int]] = lambda order: []) -> CallablePredictor:
    """Counts of what follows what, over the documents that were read before. first_epochs: documents that are read before any
    charge, from the order."""

    def charges(tokens: np.ndarray) -> np.ndarray:
        bounds = document_bounds(tokens, BOS)
        numbers = list(order(tokens, bounds))
        ids, seen, out = tokens.astype(np.int64), np.zeros((VOCAB_SIZE, VOCAB_SIZE)), np.zeros(len(tokens) - 1)
        for number in [*first_epochs(numbers), *numbers]:
            first, stop = _targets(tokens, bounds[number])
            before, after = ids[first:stop], ids[first + 1 : stop + 1]
            for place, (one, other) in enumerate(zip(before.tolist(), after.tolist(), strict=True), first):
                total = seen[one].sum()
                out[place] = -math.log((4 * bigrams()[one, other] + seen[one, other]) / (4 + total))
                seen[one, other] += 1
        return out

    return CallablePredictor(charges, VOCAB_SIZE, BOS)


def contested(verdict: Verdict) -> bool:
    return verdict.ruling is Ruling.DISPUTED and failed(verdict).keys() == {"causality.arrangement"}


@pytest.mark.parametrize("order", [longest_first, backwards])
def test_another_order_is_disputed_with_both_readings(order: Order, uneven: np.ndarray) -> None:
    verdict = judged(learning(order), uneven)
    assert contested(verdict), verdict.reason
    assert "C4a" in verdict.headline
    lenient, strict = verdict.readings
    assert (lenient["verdict"], strict["verdict"]) == ("valid", "invalid")
    check = next(one for one in verdict.checks if one.id == "causality.arrangement")
    assert "Reading one" in check.statement
    assert "Reading two" in check.statement
    assert {one.id for one in verdict.checks if one.passed is None} >= {"causality.flip"}


def test_the_order_of_the_text_asks_for_nothing(uneven: np.ndarray) -> None:
    verdict = judged(learning(lambda tokens, bounds: range(len(bounds))), uneven)
    assert verdict.ruling is Ruling.VALID


@pytest.mark.parametrize(
    "cheat",
    [
        learning(longest_first, first_epochs=lambda order: order[:2]),
        learning(longest_first, first_epochs=lambda order: order),
        learning(dearest_first),
    ],
    ids=["the longest are read first and charged then", "an epoch over all of it", "an order by what they say"],
)
def test_words_that_are_read_before_they_are_charged_are_invalid(cheat: CallablePredictor, uneven: np.ndarray) -> None:
    verdict = judged(cheat, uneven)
    assert verdict.ruling is Ruling.INVALID
    assert {"causality.flip", "causality.order"} & failed(verdict).keys()
    assert "causality.arrangement" not in failed(verdict)


def scheduled(tokens: np.ndarray, *, tells_ends: bool) -> Iterator[float]:
    """A temperature by the lengths of all documents; and, where `tells_ends`, the ends of them for nothing."""
    bounds = [bound for bound in document_bounds(tokens, BOS) if bound[0] < len(tokens) - 1]
    shares = np.array([stop - start for start, stop in (_targets(tokens, bound) for bound in bounds)])
    table = bigrams_at(1 + (np.arange(1, len(shares) + 1) @ shares) % 97 / 97)
    for one, other in zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True):
        if not tells_ends:
            yield -math.log(table[one, other])
        else:
            yield 0.0 if other == BOS else -math.log(table[one, other] / (1 - table[one, BOS]))


def test_a_schedule_of_all_lengths_is_disputed_and_ends_for_nothing_are_invalid(uneven: np.ndarray) -> None:
    honest, cheat = (
        CallablePredictor(lambda tokens, tells=tells: np.array([*scheduled(tokens, tells_ends=tells)]), VOCAB_SIZE, BOS)
        for tells in (False, True)
    )
    verdict = judged(honest, uneven)
    assert contested(verdict), verdict.reason
    assert "their lengths do" in verdict.reason
    verdict = judged(cheat, uneven)
    assert verdict.ruling is Ruling.INVALID
    assert "normalisation.sweep" in failed(verdict)


def test_a_circle_is_found_wherever_it_is() -> None:
    assert find_circle([(0, 1), (1, 2), (0, 2)]) == ()
    assert set(find_circle([(0, 1), (1, 2), (2, 3), (3, 1)])) == {1, 2, 3}
    assert find_circle([]) == ()


def test_lengths_are_priced_as_a_code_prices_them() -> None:
    generator = np.random.default_rng(1)
    lengths = generator.integers(512, 1024, 2000).tolist()
    assert 9.0 <= lengths_bits(lengths) / 2000 < 9.1, "one power of two, and nine digits"
    assert lengths_bits([1]) == pytest.approx(5.0)
