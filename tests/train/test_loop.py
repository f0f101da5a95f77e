"""The loop: budgets, warm-up, accumulation, validation, what stops a run and what does not."""

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from train_jobs import ROWS, Memory, make_trainer, run_to_end, weights

from support import BOS, VOCAB
from underpar.core.budget import Budget
from underpar.core.errors import TrainError
from underpar.core.phase import StepShape
from underpar.core.world import World
from underpar.data.context import Batch
from underpar.data.loaders import StepLoader
from underpar.train.events import EffectTrace, JsonLines, Sinks
from underpar.train.preparation import warm_up


def assert_equal_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


# ------------------------------------------------------------------------------------------------- learning


def test_training_lowers_the_loss_of_a_pattern(tmp_path: Path, data: Path) -> None:
    _, memory = run_to_end(make_trainer(tmp_path, data, budget=Budget(train_steps=40)))
    losses = memory.losses()
    assert len(losses) == 40
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.5
    assert losses[0] == pytest.approx(math.log(VOCAB), abs=0.3)


def test_two_runs_are_bit_identical(tmp_path: Path, data: Path) -> None:
    first, one = run_to_end(make_trainer(tmp_path / "a", data))
    second, two = run_to_end(make_trainer(tmp_path / "b", data))
    assert_equal_weights(first, second)
    assert one.losses() == two.losses()


@pytest.mark.parametrize("micro", [16, 48, 192])
def test_micro_batches_change_rounding_and_nothing_else(tmp_path: Path, data: Path, micro: int) -> None:
    budget = Budget(train_steps=6)
    _, wanted = run_to_end(make_trainer(tmp_path / "a", data, budget=budget, micro_batch_tokens=10_000))
    _, found = run_to_end(make_trainer(tmp_path / "b", data, budget=budget, micro_batch_tokens=micro))
    assert found.losses() == pytest.approx(wanted.losses(), abs=1e-5)


def test_the_logged_loss_is_the_mean_over_the_step(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path, data, budget=Budget(train_steps=1))
    batches = trainer.loader.step_at(0)
    with torch.no_grad():
        losses = torch.cat([trainer.model(b.inputs, b.targets, b.context).flatten() for b in batches])
    _, memory = run_to_end(trainer)
    assert len(losses) == ROWS.batch_tokens
    assert memory.losses() == [pytest.approx(float(losses.mean()), abs=1e-5)]


# ------------------------------------------------------------------------------------------------- warm-up


@pytest.mark.parametrize("kind", ["rows", "packed"])
def test_warm_up_leaves_no_trace(tmp_path: Path, data: Path, kind: str) -> None:
    plain, one = run_to_end(make_trainer(tmp_path / "a", data, kind=kind, warmup_steps=0))
    warmed, two = run_to_end(make_trainer(tmp_path / "b", data, kind=kind, warmup_steps=3))
    assert_equal_weights(plain, warmed)
    assert one.losses() == two.losses()


def test_warm_up_after_a_resume_leaves_no_trace(tmp_path: Path, data: Path) -> None:
    """Then the optimisers have state, which the steps on random tokens overwrite."""
    straight, _ = run_to_end(make_trainer(tmp_path / "a", data, warmup_steps=0, budget=Budget(train_tokens=192 * 9)))
    make_trainer(tmp_path / "b", data, budget=Budget(train_tokens=192 * 9), checkpoint_every_seconds=1e-9).run()
    found = sorted((tmp_path / "b" / "checkpoints").iterdir())
    for path in (found[-1] / "state.json", found[-1] / "tensors.safetensors"):
        path.unlink()
    found[-1].rmdir()
    trainer = make_trainer(tmp_path / "b", data, warmup_steps=3, budget=Budget(train_tokens=192 * 9))
    assert trainer.resume()
    assert trainer.step == 8
    before = weights(trainer), {k: v.clone() for k, v in trainer.optimisers.state_tensors().items()}
    warm_up(trainer)
    assert_equal_weights(before[0], weights(trainer))
    assert_equal_weights(before[1], trainer.optimisers.state_tensors())
    resumed, _ = run_to_end(trainer)
    assert_equal_weights(straight, resumed)


def test_warm_up_reads_no_text_and_is_outside_the_clock(tmp_path: Path, data: Path) -> None:
    class Unread(StepLoader):
        def step_at(self, position: int) -> list[Batch]:
            raise AssertionError("warm-up read the text")

    loader = Unread(data, ROWS, BOS, World(), micro_batch_tokens=64)
    trainer = make_trainer(tmp_path, data, loader=loader, warmup_steps=2)
    warm_up(trainer)
    assert trainer.clock.elapsed == 0.0
    assert trainer.clock.paused_seconds["warm-up"] > 0.0
    assert (trainer.step, loader.position) == (0, 0)


# ------------------------------------------------------------------------------------------------- budgets


class FakeTime:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def perf_counter(self) -> float:
        return self.now


class TimedLoader(StepLoader):
    """Hands out a step after pretending that the one before took a while."""

    durations: Iterator[float]
    fake: FakeTime

    def fetch(self, shape: StepShape | None = None) -> list[Batch]:
        batches = super().fetch(shape)
        self.fake.now += next(self.durations)
        return batches


def timed_trainer(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, durations: Iterator[float], **options: Any
) -> tuple[Any, FakeTime]:
    fake = FakeTime()
    monkeypatch.setattr("underpar.core.clock.time", fake)
    loader = TimedLoader(data, ROWS, BOS, World(), micro_batch_tokens=192)
    loader.durations, loader.fake = durations, fake
    return make_trainer(tmp_path, data, loader=loader, **options), fake


@pytest.mark.parametrize(
    ("step_seconds", "cap", "steps"), [(0.7, 10.0, 14), (0.5, 10.0, 20), (9.0, 10.0, 1), (12.0, 10.0, 1)]
)
def test_a_time_budget_is_used_and_not_overrun(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, step_seconds: float, cap: float, steps: int
) -> None:
    trainer, _ = timed_trainer(
        tmp_path, data, monkeypatch, itertools.repeat(step_seconds), budget=Budget(train_seconds=cap)
    )
    result = trainer.run()
    assert (result.steps, result.stop_reason) == (steps, "train_seconds")
    assert result.train_seconds == pytest.approx(steps * step_seconds)


def test_uneven_steps_overrun_by_less_than_their_unevenness(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        rng = random.Random(seed)
        durations = (rng.uniform(0.4, 0.6) for _ in itertools.count())
        trainer, _ = timed_trainer(tmp_path / str(seed), data, monkeypatch, durations, budget=Budget(train_seconds=8.0))
        assert 8.0 - 2 * 0.6 < trainer.run().train_seconds < 8.0 + 0.2


def test_validation_and_checkpoints_are_outside_the_clock(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validate(_model: Any) -> tuple[float, float]:
        fake.now += 100.0
        return 2.5, 1.25

    trainer, fake = timed_trainer(
        tmp_path, data, monkeypatch, itertools.repeat(0.5), budget=Budget(train_seconds=6.0), validate=validate,
        validate_every_steps=5,
    )  # fmt: skip
    _, memory = run_to_end(trainer)
    found = [e for e in memory.events if e["event"] == "validation"]
    assert [(e["step"], e["loss_nats"], e["bpb"], e["train_seconds"]) for e in found] == [
        (5, 2.5, 1.25, 2.5), (10, 2.5, 1.25, 5.0), (12, 2.5, 1.25, 6.0),
    ]  # fmt: skip
    assert trainer.step == 12
    assert trainer.clock.elapsed == pytest.approx(6.0)
    assert trainer.clock.paused_seconds["validation"] == pytest.approx(300.0)


def test_seconds_spent_before_a_resume_count(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = timed_trainer(tmp_path, data, monkeypatch, itertools.repeat(0.5), budget=Budget(train_seconds=3.0))
    first.run()
    again, _ = timed_trainer(tmp_path, data, monkeypatch, itertools.repeat(0.5), budget=Budget(train_seconds=5.0))
    assert again.resume()
    assert again.clock.elapsed == pytest.approx(3.0)
    assert again.run().steps == 10


@pytest.mark.parametrize(
    ("budget", "steps", "reason"),
    [
        (Budget(train_steps=7), 7, "train_steps"),
        (Budget(train_tokens=192 * 5), 5, "train_tokens"),
        (Budget(train_tokens=192 * 5 + 1), 6, "train_tokens"),
        (Budget(train_steps=9, train_tokens=192 * 4, train_seconds=1e6), 4, "train_tokens"),
    ],
)
def test_the_first_limit_stops_the_run(tmp_path: Path, data: Path, budget: Budget, steps: int, reason: str) -> None:
    result = make_trainer(tmp_path, data, budget=budget).run()
    assert (result.steps, result.tokens, result.stop_reason) == (steps, steps * 192, reason)


def test_a_finished_run_started_again_does_nothing_more(tmp_path: Path, data: Path) -> None:
    first = make_trainer(tmp_path, data).run()
    again = make_trainer(tmp_path, data, warmup_steps=3)
    assert again.resume()
    before = weights(again)
    second = again.run()
    assert "warm-up" not in second.paused_seconds
    assert (second.steps, second.final_loss_nats) == (12, first.final_loss_nats)
    assert second.step_ms_median == first.step_ms_median
    assert_equal_weights(before, weights(again))


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_a_bad_parameter_stops_the_run_and_is_named(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path, data)
    with torch.no_grad():
        dict(trainer.model.named_parameters())["blocks.1.mlp.up.weight"][3, 5] = float("nan")
    with pytest.raises(TrainError) as problem:
        trainer.run()
    assert "non-finite loss at step 1" in str(problem.value)
    assert "parameter blocks.1.mlp.up.weight (1 of 2,048 values are NaN or infinite)" in str(problem.value)
    assert not (tmp_path / "checkpoints").exists()  # a bad state is not kept


def test_the_first_bad_activation_is_named(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path, data)
    with torch.no_grad():
        dict(trainer.model.named_parameters())["blocks.1.mlp.up.weight"].fill_(1e30)
    with pytest.raises(TrainError, match=r"first bad tensor is output of blocks\.1\.mlp \("):
        trainer.run()


def test_a_bad_loss_in_a_late_micro_batch_is_found_before_the_update(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path, data, micro_batch_tokens=16)
    calls = itertools.count()
    forward = trainer.forward
    trainer.forward = lambda *args: forward(*args) * (float("inf") if next(calls) == 30 else 1.0)
    with pytest.raises(TrainError, match="non-finite loss at step 3"):
        trainer.run()
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


class Failing:
    """A sink whose service is down after the first events."""

    def __init__(self, good: int) -> None:
        self.good, self.calls = good, 0

    def log(self, event: dict[str, Any]) -> None:
        self.calls += 1
        if self.calls > self.good:
            raise ConnectionError("no route to host")

    def close(self) -> None:
        raise ConnectionError("still no route")


@pytest.mark.parametrize("good", [0, 3, 10_000])
def test_a_failing_optional_sink_never_fails_a_run(
    tmp_path: Path, data: Path, good: int, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, _ = run_to_end(make_trainer(tmp_path / "a", data))
    failing, memory = Failing(good), Memory()
    trainer = make_trainer(tmp_path / "b", data, sinks=Sinks(required=[memory], optional=[failing, Memory()]))
    assert trainer.run().steps == 12
    trainer.sinks.close()
    assert_equal_weights(wanted, weights(trainer))
    assert len(memory.losses()) == 12
    assert capsys.readouterr().err.count("warning: Failing failed and is off from here on") == 1
    assert failing.calls <= good + 1


def test_a_failing_required_sink_does_fail(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConnectionError):
        make_trainer(tmp_path, data, sinks=Sinks(required=[Failing(2)])).run()


# ------------------------------------------------------------------------------------------------- what is said


def test_events_tell_the_run(tmp_path: Path, data: Path) -> None:
    _, memory = run_to_end(make_trainer(tmp_path, data, budget=Budget(train_steps=3)))
    assert [e["event"] for e in memory.events] == ["start", "step", "step", "step", "checkpoint", "stop"]
    start, step, stop = memory.events[0], memory.events[2], memory.events[-1]
    assert (start["world_size"], start["batch_tokens"], start["device"]) == (1, 192, "cpu")
    assert (step["step"], step["tokens"]) == (2, 384)
    assert (stop["reason"], stop["step"]) == ("train_steps", 3)


def test_the_effect_trace_holds_what_was_used_and_survives_a_resume(tmp_path: Path, data: Path) -> None:
    trainer = make_trainer(tmp_path / "a", data, budget=Budget(train_steps=12))
    trainer.run()
    changes = trainer.trace.changes
    assert changes["train.batch_tokens"] == [[1, 192]]
    assert changes["train.seq_len"] == [[1, 16]]
    rates = [trainer.trace.values_at("optim.matrix.lr", step) for step in range(1, 13)]
    assert rates == pytest.approx([0.02 * min(1.0, (12 - s) / 20) for s in range(12)])
    momenta = [trainer.trace.values_at("optim.matrix.momentum", step) for step in range(1, 13)]
    assert momenta == pytest.approx([0.85 + 0.1 * min(s / 10, 1.0) for s in range(12)])
    again = make_trainer(tmp_path / "a", data)
    again.resume()
    assert again.trace.changes == changes


def test_the_trace_keeps_changes_only() -> None:
    trace = EffectTrace()
    for step, value in enumerate([1.0, 1.0, 1.0 + 1e-12, 0.5], start=1):
        trace.record(step, {"lr": value})
    assert trace.changes == {"lr": [[1, 1.0], [4, 0.5]]}


def test_the_event_file_is_cut_at_the_step_that_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    log = JsonLines(path)
    for step in range(1, 6):
        log.log({"event": "step", "step": step})
    log.log({"event": "stop", "step": 5})
    log.close()
    with path.open("a") as file:
        file.write('{"event": "step", "st')  # a kill in the middle of a line
    JsonLines(path, resume_step=3).close()
    assert path.read_text().splitlines() == [f'{{"event": "step", "step": {s}}}' for s in (1, 2, 3)]
    JsonLines(path).close()
    assert path.read_text() == ""
