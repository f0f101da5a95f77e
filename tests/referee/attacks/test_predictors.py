"""Every cheat is refused by the check that is named for it, with its class; every honest twin passes; pairs are refused too."""

from itertools import combinations

import numpy as np
import pytest

from underpar.referee.attacks.base import BOS, VOCAB_SIZE, bigrams, bigrams_at, pay
from underpar.referee.attacks.registry import ATTACKS, Attack, Shape
from underpar.referee.predictor import CallablePredictor, ObjectPredictor, Predictor
from underpar.referee.rules import Mark
from underpar.referee.verdict import Ruling

from .judging import QUICK, failed, judged

PREDICTORS = [attack for attack in ATTACKS if attack.shape is Shape.PREDICTOR]
DISPUTED = {"V10", "V14"}
"""A stored text cannot be told from one learnt by right, and the look-back is argued about."""
BLOCK = 24
"""Positions that one of two combined cheats charges before it is the other's turn."""


@pytest.mark.parametrize("attack", PREDICTORS, ids=lambda attack: attack.name)
def test_the_cheat_is_refused_and_its_class_is_named(attack: Attack, held_out: np.ndarray) -> None:
    verdict = judged(attack.predictor("forbidden", held_out), held_out)
    assert verdict.ruling is (Ruling.DISPUTED if attack.class_id in DISPUTED else Ruling.INVALID)
    found = failed(verdict)
    assert attack.caught_by[0] in found
    assert attack.class_id in found[attack.caught_by[0]]
    if attack.class_id not in DISPUTED:
        assert any(check.passed is False and check.mark is Mark.OFFICIAL for check in verdict.checks)


@pytest.mark.parametrize("attack", PREDICTORS, ids=lambda attack: attack.name)
def test_the_honest_twin_passes(attack: Attack, held_out: np.ndarray) -> None:
    verdict = judged(attack.predictor("allowed", held_out), held_out)
    assert failed(verdict).keys() == ({"causality.arrangement"} if attack.contested else set())
    assert verdict.ruling is (Ruling.DISPUTED if attack.contested else Ruling.VALID)


def by_length(tokens: np.ndarray) -> np.ndarray:
    """Two temperatures are mixed by how long the text is: a schedule, which a decoder can be told in a few bits."""
    return mixed(1 / (1 + len(tokens) / 500), tokens)


def by_layout(tokens: np.ndarray) -> np.ndarray:
    """They are mixed by how long the documents are: which is as much to tell as there are documents."""
    starts = np.append(np.flatnonzero(tokens == BOS), len(tokens))
    return mixed(np.arange(len(starts) - 1) @ np.diff(starts) % 97 / 97, tokens)


def mixed(share: float, tokens: np.ndarray) -> np.ndarray:
    return pay(share * bigrams_at(1.5) + (1 - share) * bigrams(), tokens)


def test_a_schedule_may_go_by_the_length_of_the_text_and_is_disputed_by_those_of_its_documents(
    held_out: np.ndarray,
) -> None:
    verdict = judged(CallablePredictor(by_length, VOCAB_SIZE, BOS), held_out)
    assert verdict.ruling is Ruling.VALID
    sweep = next(check for check in verdict.checks if check.id == "normalisation.sweep")
    assert "how much text there is" in sweep.statement
    uneven = np.concatenate([held_out[:100], *(held_out[150 * n : 150 * n + 40 + 9 * n] for n in range(1, 12))])
    verdict = judged(CallablePredictor(by_layout, VOCAB_SIZE, BOS), uneven)
    assert verdict.ruling is Ruling.DISPUTED
    assert failed(verdict).keys() == {"causality.arrangement"}


class Pair:
    """Blocks of positions charged by two predictors in turn."""

    def __init__(self, one: Predictor, other: Predictor) -> None:
        self.parts, self.before = (one, other), None

    def warm_up(self, tokens: np.ndarray) -> None:
        self.before = tokens

    def charges(self, tokens: np.ndarray) -> np.ndarray:
        each = [self.part(part, tokens) for part in self.parts]
        length = min(map(len, each))
        turn = np.arange(length) // BLOCK % 2
        return np.where(turn == 0, each[0][:length], each[1][:length])

    def part(self, part: Predictor, tokens: np.ndarray) -> np.ndarray:
        if isinstance(part, ObjectPredictor):
            return part.charges(tokens) if self.before is None else part.charges_after(self.before, tokens)
        return part.function(tokens)


@pytest.mark.parametrize("pair", list(combinations(PREDICTORS, 2)), ids=lambda pair: "+".join(a.class_id for a in pair))
def test_two_cheats_at_once_are_still_refused(pair: tuple[Attack, Attack], held_out: np.ndarray) -> None:
    parts = [attack.predictor("forbidden", held_out) for attack in pair]
    verdict = judged(ObjectPredictor(lambda: Pair(*parts), VOCAB_SIZE, BOS), held_out, plan=QUICK)
    assert verdict.ruling in (Ruling.INVALID, Ruling.DISPUTED), failed(verdict)
