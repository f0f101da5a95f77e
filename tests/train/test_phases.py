"""What the forward pass does may change while a run lasts: the schedule decides, the model obeys, the trace says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from train_jobs import Memory, make_trainer, run_to_end, weights

from underpar.core.budget import Budget
from underpar.core.phase import EVALUATION, Phase
from underpar.core.world import World
from underpar.nn.fake_quantise import FakeIntPerRow
from underpar.optim.schedules import FromFraction, Schedule
from underpar.train.events import Sinks
from underpar.train.preparation import rehearse, warm_up


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Listener:
    """Stands in front of the model and keeps the phases it was called with."""

    def __init__(self, trainer: Any) -> None:
        self.model, self.phases = trainer.model, []
        trainer.forward = self

    def __call__(self, *args: Any) -> torch.Tensor:
        self.phases.append(args[3])
        return self.model(*args)


def test_the_model_runs_the_phase_of_the_schedule(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path, data, stack="late", micro_batch_tokens=192, budget=Budget(train_steps=20))
    listener = Listener(trainer)
    trainer.run()
    looped = [phase.looped for phase in listener.phases]
    assert looped == [False] * 7 + [True] * 13  # 0.35 of 20 steps
    quantised = [phase.quantised for phase in listener.phases]
    assert (
        quantised == [False] * 11 + [True] * 9
    )  # the rate falls from 1 at the start to 0 at the end: below a half at 11/20
    assert trainer.trace.changes["phase.looped"] == [[1, 0.0], [8, 1.0]]
    assert trainer.trace.changes["phase.quantised"] == [[1, 0.0], [12, 1.0]]


def test_the_warm_up_meets_every_phase_and_leaves_no_trace(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path / "a", data, stack="late", warmup_steps=5)
    listener = Listener(trainer)
    before = weights(trainer)
    warm_up(trainer)
    assert set(listener.phases) == {Phase(looped, fake) for looped in (False, True) for fake in (False, True)}
    assert equal(before, weights(trainer))
    plain, one = run_to_end(make_trainer(tmp_path / "b", data, stack="late"))
    warmed, two = run_to_end(trainer)
    assert equal(plain, warmed)
    assert one.losses() == two.losses()


def test_a_model_that_tells_no_phases_apart_compiles_once_and_traces_none(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path, data)
    trainer.schedule = Schedule(recurrence=FromFraction(fraction=0.5), fake_quantise=FromFraction(fraction=0.5))
    assert trainer.phases == (EVALUATION,)
    listener = Listener(trainer)
    trainer.run()
    assert set(listener.phases) == {EVALUATION}
    assert not any(name.startswith("phase.") for name in trainer.trace.changes)


def test_fake_quantisation_changes_training_and_not_validation(tmp_path: Path, data: Path) -> None:
    def validate(model: Any) -> tuple[float, float]:
        batch = trainer.loader.step_at(0)[0]
        with torch.no_grad():
            seen = model(batch.inputs, batch.targets, batch.context)
            model.fake_quantiser = None
            assert torch.equal(seen, model(batch.inputs, batch.targets, batch.context))
        return 1.0, 1.0

    plain, _ = run_to_end(make_trainer(tmp_path / "a", data))
    trainer = make_trainer(tmp_path / "b", data, validate=validate)
    trainer.model.fake_quantiser = FakeIntPerRow(bits=3)
    faked, _ = run_to_end(trainer)
    assert not equal(plain, faked)


def test_a_bad_activation_is_sought_in_the_phase_that_made_it(tmp_path: Path, data: Path) -> None:
    class Poison(FakeIntPerRow):
        def __call__(self, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return super().__call__(weight, x) * float("nan")

    trainer = make_trainer(tmp_path, data)
    trainer.model.fake_quantiser = Poison()
    with pytest.raises(Exception, match=r"first bad tensor is output of blocks\.0\.attention"):
        trainer.run()


@pytest.mark.parametrize("kind", ["rows", "packed"])
def test_a_rehearsal_leaves_no_trace(tmp_path: Path, data: Path, kind: str) -> None:
    plain, one = run_to_end(make_trainer(tmp_path / "a", data, stack="late", kind=kind))
    trainer = make_trainer(tmp_path / "b", data, stack="late", kind=kind)
    assert trainer.average is not None
    before = trainer.average.averaged()
    rehearse(trainer)
    assert (trainer.step, trainer.loader.position, trainer.visited_seconds, trainer.trace.changes) == (0, 0, [], {})
    assert equal(before, trainer.average.averaged())
    rehearsed, two = run_to_end(trainer)
    assert equal(plain, rehearsed)
    assert one.losses() == two.losses()


def test_the_clock_of_every_step_is_kept_through_a_resume(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path, data, sinks=Sinks(required=[Memory()]))
    trainer.run()
    assert len(trainer.visited_seconds) == 12
    assert trainer.visited_seconds == sorted(trainer.visited_seconds)
    again = make_trainer(tmp_path, data, world=World())
    again.resume()
    assert again.visited_seconds == trainer.visited_seconds
