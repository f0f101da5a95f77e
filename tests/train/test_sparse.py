"""A table with gradients by rows trains as one with gradients as large as itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor
from train_jobs import job, make_trainer, run_to_end

from launcher import Launcher
from underpar.model.compiled import compile_model, graphs_compiled
from underpar.train.checkpoint import complete_checkpoints, load_checkpoint
from underpar.train.loop import Trainer

STEPS = 11
"""Odd: the last step's gradients wait for an update that never comes."""
BY_ROWS = "optim.bigram_embedding.by_rows"


def trained(folder: Path, data: Path, stack: str, **options: Any) -> tuple[Trainer, dict[str, Tensor]]:
    trainer = make_trainer(folder / stack, data, stack=stack, warmup_steps=2, **options)
    return trainer, run_to_end(trainer)[0]


@pytest.fixture(scope="module")
def dense(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return trained(tmp_path_factory.mktemp("dense"), data, "dense")[1]


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_weights_are_bit_identical_to_those_of_dense_gradients(
    tmp_path: Path, data: Path, dense: dict[str, Tensor]
) -> None:
    trainer, found = trained(tmp_path, data, "sparse")
    assert found["bigram.table"].any()
    assert same(found, dense)
    assert trainer.trace.changes[BY_ROWS] == [[2, 1.0]]  # from the first update on


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch looks whether an input of a graph has one
def test_compiled_graphs_get_what_was_looked_up_outside(tmp_path: Path, data: Path, dense: dict[str, Tensor]) -> None:
    torch._dynamo.reset()
    trainer = make_trainer(tmp_path, data, stack="sparse", warmup_steps=2)
    trainer.forward = compile_model(trainer.model, backend="aot_eager")
    before = graphs_compiled()
    found = run_to_end(trainer)[0]
    assert graphs_compiled() - before == len(trainer.kinds)
    assert trainer.recompilations == 0
    assert trainer.trace.changes[BY_ROWS] == [[2, 1.0]]
    for name, wanted in dense.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-5)


def test_a_graph_that_looks_up_by_itself_is_right_and_seen(
    tmp_path: Path, data: Path, dense: dict[str, Tensor]
) -> None:
    """Its gradients are dense, and their rows are looked for; the trace says so."""
    torch._dynamo.reset()
    trainer = make_trainer(tmp_path, data, stack="sparse", warmup_steps=2)
    trainer.forward = torch.compile(trainer.model, backend="eager", dynamic=False)
    found = run_to_end(trainer)[0]
    assert trainer.trace.changes[BY_ROWS] == [[2, 0.0]]
    assert same(found, dense)


def state_of(folder: Path) -> dict[str, Tensor]:
    saved = load_checkpoint(complete_checkpoints(folder / "checkpoints")[-1])
    assert saved.position.step == STEPS
    return saved.model | saved.optimiser


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_end_where_dense_gradients_of_one_do(
    launcher: Launcher, data: Path, tmp_path: Path, size: int
) -> None:
    for stack, processes in (("dense", 1), ("sparse", size)):
        launcher.together(processes, job, str(tmp_path / stack), str(data), STEPS, {"stack": stack})
    found, wanted = state_of(tmp_path / "sparse"), state_of(tmp_path / "dense")
    assert any(name.endswith("waiting_gradient") for name in found)
    assert_close(found, wanted)


def test_a_run_goes_on_with_other_processes_and_with_the_other_table(
    launcher: Launcher, data: Path, tmp_path: Path
) -> None:
    """Stopped after an odd number of steps, when gradients wait: their rows are found again."""
    launcher.together(1, job, str(tmp_path / "whole"), str(data), STEPS, {"stack": "dense"})
    folder = tmp_path / "moved"
    for stop_at, processes, stack in ((3, 3, "sparse"), (5, 1, "dense"), (7, 1, "sparse"), (0, 2, "sparse")):
        launcher.together(processes, job, str(folder), str(data), STEPS, {"stack": stack}, stop_at)
        assert load_checkpoint(complete_checkpoints(folder / "checkpoints")[-1]).position.step == (stop_at or STEPS)
    assert_close(state_of(folder), state_of(tmp_path / "whole"))
