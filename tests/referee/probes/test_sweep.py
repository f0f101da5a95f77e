"""The sweep: sums of honest predictors are 1 wherever they are asked; what is not is found, and the real token is compared."""

import numpy as np
import pytest

from underpar.referee.examine import run_probes
from underpar.referee.measurement import Measurement
from underpar.referee.plan import Plan
from underpar.referee.predictor import StepPredictor
from underpar.referee.probes.sweep import (
    likely_ids,
    share_ruled_out,
    sweep_by_charging,
    sweep_choice,
    sweep_distributions,
    sweep_ids,
)

from .streams import BOS, VOCAB, adaptive, box, fixed, stream

ALL = np.arange(VOCAB)


def sweep(function, tokens: np.ndarray, positions=(5, 100, 250), ids: np.ndarray = ALL):
    one = box(function)
    return sweep_by_charging(one, tokens, positions, 2, lambda position: ids, one.charges(tokens))


@pytest.mark.parametrize("honest", [fixed, adaptive])
def test_sums_of_honest_predictors_are_one(honest) -> None:
    found = sweep(honest, stream())
    assert np.abs(np.array(found.sums) - 1).max() < 1e-12
    assert found.cut_change_nats == 0.0
    assert found.is_full


def test_an_inflated_distribution_and_a_lossy_one_are_measured() -> None:
    assert sweep(lambda t: fixed(t) - np.log(1.05), stream()).least_sum == pytest.approx(1.05)
    assert sweep(lambda t: fixed(t) + np.log(2), stream()).largest_sum == pytest.approx(0.5)


def test_a_charge_that_depends_on_the_length_of_the_text_is_seen() -> None:
    assert sweep(lambda t: fixed(t) + 1e-4 * len(t), stream()).cut_change_nats > 0.01


def test_a_sample_of_ids_shows_an_excess_and_holds_the_likely_ones() -> None:
    tokens = stream()
    ids = sweep_ids(tokens, 100, VOCAB, 10, np.random.default_rng(0))
    assert len(set(ids.tolist())) == 10
    assert set(likely_ids(tokens, 100, 5).tolist()) <= set(ids.tolist())
    assert sweep_ids(tokens, 100, VOCAB, VOCAB, np.random.default_rng(0)).tolist() == ALL.tolist()
    found = sweep(lambda t: np.zeros(len(t) - 1), tokens, ids=ids)
    assert found.least_sum == 10.0
    assert not found.is_full


def test_half_of_the_positions_is_random_and_the_others_are_where_charges_are_low() -> None:
    tokens = stream()
    base = fixed(tokens.astype(np.int64)) + 1.0
    base[333 - 1] = 0.0
    chosen, at_random = sweep_choice(tokens, base, 5, BOS, np.random.default_rng(0))
    assert at_random == 3
    assert chosen[3] == 333
    assert len(set(chosen)) == 5
    assert not any(tokens[position] == BOS for position in chosen)


def test_a_stepwise_predictor_is_read_at_every_position() -> None:
    class Step:
        def step(self, token: int) -> np.ndarray:
            row = np.ones(VOCAB) / VOCAB
            return row * 1.2 if token == 3 else row

    tokens = stream(200)
    found = sweep_distributions(StepPredictor(Step, VOCAB, BOS), tokens)
    wrong = np.flatnonzero(np.abs(np.array(found.sums) - 1) > 1e-9)
    assert wrong.tolist() == np.flatnonzero(tokens[:-1] == 3).tolist()


def test_what_so_many_random_positions_rule_out() -> None:
    assert share_ruled_out(0) == 1.0
    assert share_ruled_out(59) == pytest.approx(0.05, abs=1e-3)


def rare_gate(tokens: np.ndarray) -> np.ndarray:
    """A cheat at few places: twice the probability for the token that came, after 5 and 9."""
    fires = (tokens[:-1] == 9) & (np.append(0, tokens[:-2]) == 7)
    return fixed(tokens) - np.log(2.0) * fires


def test_likely_ids_hold_the_real_one_and_what_follows_in_the_text() -> None:
    tokens = stream()
    found = likely_ids(tokens, 100, 5)
    assert tokens[100] in found
    following = tokens[1:][tokens[:-1] == tokens[99]]
    assert np.bincount(following).argmax() in found
    assert 5 <= len(found) <= 6


def test_a_gate_at_few_places_is_found_by_screening_many() -> None:
    tokens = stream()
    share = np.mean((tokens[1:-1] == 9) & (tokens[:-2] == 7))
    assert 0.005 < share < 0.05
    sums = []
    for positions in (0, 300):
        found = Measurement()
        plan = Plan(len(tokens), 1, (), 60, sweep_positions=4, sweep_ids=VOCAB, screen_positions=positions)
        run_probes(box(rare_gate), tokens, plan, 1, found)
        sums.append(found.facts["sweep"]["largest_sum"])
    assert sums == pytest.approx([1.0, 2.0])
    assert found.facts["sweep"]["screened"] >= 280, "but for the starts of documents"
    assert found.facts["sweep"]["largest_screened"] > 1.001
