"""A run that is killed, interrupted or moved goes on as if nothing had happened."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train_jobs import job, job_killed_at

from launcher import Launcher
from underpar.train.checkpoint import complete_checkpoints, load_checkpoint

STEPS = 25
OFTEN = {"checkpoint_every_seconds": 1e-9}
"""A checkpoint after every step."""


@pytest.fixture(scope="module")
def whole(launcher: Launcher, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    return uninterrupted(launcher, data, tmp_path_factory, {})


def uninterrupted(
    launcher: Launcher, data: Path, tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any]
) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert launcher.run(job, str(folder), str(data), STEPS, options) == 0
    return folder


def final_state(folder: Path) -> dict[str, Tensor]:
    position, *parts = load_checkpoint(complete_checkpoints(folder / "checkpoints")[-1])
    assert position.step == STEPS
    extra = {"step": position.step, "tokens": position.tokens, "loader": position.loader_position}
    tensors = {f"{index}.{name}": t for index, part in enumerate(parts) for name, t in part.items()}
    return tensors | {k: torch.tensor(v) for k, v in extra.items()}


def step_events(folder: Path) -> list[tuple[Any, ...]]:
    """What must repeat exactly: all of a step but its times."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    keys = ("step", "tokens", "loss_nats", "lr_scale", "momentum")
    return [tuple(e[k] for k in keys) for e in lines if e["event"] == "step"]


def losses_of(events: list[tuple[Any, ...]]) -> Tensor:
    return torch.tensor([e[2] for e in events], dtype=torch.float64)


def assert_same(folder: Path, whole: Path) -> None:
    found, wanted = final_state(folder), final_state(whole)
    assert found.keys() == wanted.keys()
    assert [k for k in wanted if not torch.equal(found[k], wanted[k])] == []
    assert step_events(folder) == step_events(whole)
    assert [e[0] for e in step_events(folder)] == list(range(1, STEPS + 1))
    traces = [load_checkpoint(complete_checkpoints(f / "checkpoints")[-1]).position.trace for f in (folder, whole)]
    assert traces[0] == traces[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stack": "late", "warmup_steps": 1},
        {"stack": "late", "average": "swa"},
        {"stack": "halves", "warmup_steps": 2},
    ],
)
def test_a_run_killed_at_random_moments_ends_bit_identical(
    launcher: Launcher, data: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any]
) -> None:
    whole = uninterrupted(launcher, data, tmp_path_factory, options)
    rng = random.Random(5)
    for _ in range(6):
        process = launcher.start(job, str(tmp_path), str(data), STEPS, options | OFTEN)
        while not (tmp_path / "checkpoints").exists() and process.is_alive():
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.12))
        if (tmp_path / "done").exists():
            break
        process.kill()
        process.join()
    assert launcher.run(job, str(tmp_path), str(data), STEPS, options | OFTEN) == 0
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("first", [0, 8, 17])
def test_a_run_killed_inside_its_checkpoints_ends_bit_identical(
    launcher: Launcher, data: Path, whole: Path, tmp_path: Path, first: int
) -> None:
    """Each attempt dies a few disk operations further in its life than the one before: in a write, a rename, a deletion."""
    for count in (first, first + 1, first + 24, first + 2):
        code = launcher.run(job_killed_at, str(tmp_path), str(data), STEPS, OFTEN, count)
        assert code == -signal.SIGKILL
    assert launcher.run(job, str(tmp_path), str(data), STEPS, OFTEN) == 0
    assert_same(tmp_path, whole)
    assert len(complete_checkpoints(tmp_path / "checkpoints")) == 2
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [f"step-{STEPS - 1:08d}", f"step-{STEPS:08d}"]


def test_a_finished_run_started_again_and_killed_is_still_whole(
    launcher: Launcher, data: Path, whole: Path, tmp_path: Path
) -> None:
    """It writes its last checkpoint once more: at no operation may that leave half of it."""
    assert launcher.run(job, str(tmp_path), str(data), STEPS, OFTEN) == 0
    for count in range(12):
        code = launcher.run(job_killed_at, str(tmp_path), str(data), STEPS, OFTEN, count)
        assert code in (0, -signal.SIGKILL)
        found = complete_checkpoints(tmp_path / "checkpoints")
        assert load_checkpoint(found[-1]).position.step >= STEPS - 1
    assert launcher.run(job, str(tmp_path), str(data), STEPS, OFTEN) == 0
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_writes_a_checkpoint_and_leaves(
    launcher: Launcher, data: Path, whole: Path, tmp_path: Path, number: int
) -> None:
    process = launcher.start(job, str(tmp_path), str(data), 100_000, {})
    log = tmp_path / "train.jsonl"
    while process.is_alive() and not (log.exists() and log.read_text().count('"step",') + 1 > 3):
        time.sleep(0.002)
    os.kill(process.pid or 0, number)
    process.join(30)
    assert process.exitcode == 0
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert events[-1]["event"] == "stop"
    assert events[-1]["reason"] == "interrupted"
    found = complete_checkpoints(tmp_path / "checkpoints")
    assert len(found) == 1
    assert load_checkpoint(found[0]).position.step == events[-1]["step"]


@pytest.mark.parametrize(
    "options", [{"kind": "rows"}, {"kind": "packed"}, {"kind": "packed", "average": "ema"}, {"stack": "speedrun"}]
)
def test_processes_together_train_as_one(
    launcher: Launcher, data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Losses to 1e-5: sums over ranks are taken in another order, and Muon stacks its matrices otherwise."""
    losses, states = {}, {}
    for size in (1, 2, 3):
        folder = tmp_path / str(size)
        folder.mkdir()
        launcher.together(size, job, str(folder), str(data), STEPS, options | {"warmup_steps": 2})
        losses[size] = losses_of(step_events(folder))
        states[size] = final_state(folder)
    for size in (2, 3):
        assert float((losses[size] - losses[1]).abs().max()) < 1e-5
        assert states[size].keys() == states[1].keys()
        for name, wanted in states[1].items():
            torch.testing.assert_close(states[size][name], wanted, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("size", [1, 3])
def test_a_checkpoint_of_two_processes_goes_on_in_another_number(
    launcher: Launcher, data: Path, whole: Path, tmp_path: Path, size: int
) -> None:
    launcher.together(2, job, str(tmp_path), str(data), STEPS, {}, 10)
    assert len(step_events(tmp_path)) == 10
    launcher.together(size, job, str(tmp_path), str(data), STEPS, {})
    found, wanted = step_events(tmp_path), step_events(whole)
    assert [e[:2] + e[3:] for e in found] == [e[:2] + e[3:] for e in wanted]
    assert float((losses_of(found) - losses_of(wanted)).abs().max()) < 1e-5
