"""Checkpoints appear whole or not at all, and damage is named."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from train_jobs import make_trainer

from underpar.core.budget import Budget
from underpar.core.errors import TrainError
from underpar.train.checkpoint import Checkpoint, Position, complete_checkpoints, load_checkpoint, save_checkpoint

MODEL = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
OPTIMISER = {"a.weight.momentum": torch.full((2, 3), -0.5), "b.step": torch.tensor(3.0)}
AVERAGE = {"a.weight.average": torch.full((2, 3), 0.25)}


def save(folder: Path, step: int) -> Path:
    return save_checkpoint(folder, Checkpoint(position(step), MODEL, OPTIMISER, AVERAGE))


def position(step: int) -> Position:
    trace = {"optim.matrix.lr": [[1.0, 0.04]]}
    return Position(
        "print",
        step,
        step * 10,
        1.5,
        step * 11,
        trace,
        {"warm-up": 2.0},
        [0.0, 0.75],
        1,
        loss_nats=2.5,
        step_ms_median=7.0,
    )


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path, 7), "print")
    assert loaded.position == position(7)
    for found, wanted in ((loaded.model, MODEL), (loaded.optimiser, OPTIMISER), (loaded.averaging, AVERAGE)):
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert torch.equal(found[name], wanted[name])
            assert found[name].dtype == wanted[name].dtype


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 9):
        save(tmp_path, step)
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000009", "step-00000010"]
    assert sorted(os.listdir(tmp_path)) == ["step-00000009", "step-00000010"]


def test_one_step_saved_twice_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 4)
    path = save_checkpoint(tmp_path, Checkpoint(Position("print", 4, tokens=99), MODEL, OPTIMISER, {}))
    assert load_checkpoint(path).position.tokens == 99
    assert os.listdir(tmp_path) == ["step-00000004"]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_named_and_no_crash(tmp_path: Path, name: str, keep: float) -> None:
    path = save(tmp_path, 5)
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(TrainError, match=r"checkpoint .*step-00000005 is damaged"):
        load_checkpoint(path)


def test_a_missing_file_is_damage_or_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 5)
    path = save(tmp_path, 6)
    (path / "tensors.safetensors").unlink()
    with pytest.raises(TrainError, match="damaged"):
        load_checkpoint(path)
    (path / "state.json").unlink()
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000005"]


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.sampled_from(["tensors.safetensors"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_of_the_tensors_is_noticed(tmp_path: Path, where: float, bit: int, name: str) -> None:
    path = save(tmp_path, 5)
    data = bytearray((path / name).read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    (path / name).write_bytes(data)
    with pytest.raises(TrainError, match="damaged: its tensors do not match"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '"sha256"', '{"sha256": 3}'])
def test_json_that_is_no_state_is_damage(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, 5)
    (path / "state.json").write_text(text)
    with pytest.raises(TrainError, match="damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("change", [{"extra": 1}, {"step": 6}, {"step": "5"}, {"trace": {}}, {"fingerprint": "other"}])
def test_a_state_that_was_edited_is_damage(tmp_path: Path, change: dict[str, object]) -> None:
    path = save(tmp_path, 5)
    state = json.loads((path / "state.json").read_text()) | change
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(TrainError, match="damaged"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="was made by configuration print, this is other; --fresh"):
        load_checkpoint(save(tmp_path, 5), "other")


def test_leftovers_of_killed_runs_are_cleared_and_never_taken_for_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 5)
    dead = 2**22 + 12_345  # above the largest process id of Linux
    for name in (f".step-00000009.tmp-{dead}", f".step-00000005.old.tmp-{dead}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{}")
    (tmp_path / f".step-00000010.tmp-{os.getppid()}").mkdir()  # somebody alive is writing this one
    (tmp_path / ".step-00000011.tmp-strange").mkdir()
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000005"]
    assert sorted(os.listdir(tmp_path)) == [
        f".step-00000010.tmp-{os.getppid()}", ".step-00000011.tmp-strange", "step-00000005",
    ]  # fmt: skip


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert complete_checkpoints(tmp_path / "nothing") == []


def test_a_trainer_refuses_what_another_recipe_left(tmp_path: Path, data: Path) -> None:
    make_trainer(tmp_path, data, budget=Budget(train_steps=2)).run()
    assert make_trainer(tmp_path, data).resume()
    with pytest.raises(TrainError, match="use another --out"):
        make_trainer(tmp_path, data, fingerprint="e" * 16).resume()


def test_a_checkpoint_whose_tensors_do_not_fit_the_model_is_refused(tmp_path: Path, data: Path) -> None:
    save_checkpoint(tmp_path / "checkpoints", Checkpoint(Position("f" * 16, 3), MODEL, OPTIMISER, {}))
    with pytest.raises(TrainError, match="does not fit"):
        make_trainer(tmp_path, data).resume()
