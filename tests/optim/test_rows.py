"""Gradients by rows are the gradients, on any number of processes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rows_jobs import CASES, train_by_rows, trained
from safetensors.torch import load_file

from launcher import Launcher
from underpar.core.world import World
from underpar.nn.rows import is_noted, keep_rows, look_up, touched

SIZES = (2, 3)


def table(dtype: torch.dtype = torch.float32) -> torch.nn.Parameter:
    made = torch.nn.Parameter(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).to(dtype))
    keep_rows(made)
    return made


def tokens(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(10, 30, (2, 40), generator=generator), torch.randn(2, 40, 8, generator=generator)


# ------------------------------------------------------------------------------------------------- adding up


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_those_of_autograd_bit_by_bit(dtype: torch.dtype) -> None:
    ours = table(dtype)
    theirs = torch.nn.Parameter(ours.detach().clone())
    for seed in range(3):
        rows, grad = tokens(seed)
        looked_up = look_up(ours, rows)
        assert torch.equal(looked_up, F.embedding(rows, theirs))
        looked_up.backward(grad.to(dtype))
        F.embedding(rows, theirs).backward(grad.to(dtype))
        assert ours.grad is not None
        assert torch.equal(ours.grad, theirs.grad)


def test_the_rows_are_remembered_each_once() -> None:
    ours = table()
    for seed in range(2):
        rows, grad = tokens(seed)
        look_up(ours, rows).backward(grad)
    assert ours.grad is not None
    assert is_noted(ours.grad)
    met = torch.cat([tokens(seed)[0].flatten() for seed in range(2)])
    rows, counts = touched(ours.grad, 20, 3)
    assert torch.equal(rows, met.unique())
    assert counts == [int((rows < 20).sum()), int((rows >= 20).sum()), 0]


def test_a_gradient_that_came_otherwise_is_searched() -> None:
    ours = table()
    rows, grad = tokens(0)
    look_up(ours, rows).backward(grad)
    F.embedding(torch.tensor([3, 47]), ours).sum().backward()  # as inside a compiled graph
    assert ours.grad is not None
    assert not is_noted(ours.grad)
    found = set(touched(ours.grad, 50, 1)[0].tolist())
    assert found == set(rows.flatten().tolist()) | {3, 47}
    look_up(ours, torch.tensor([[9]])).sum().backward()
    assert is_noted(ours.grad)
    assert set(touched(ours.grad, 50, 1)[0].tolist()) == found | {9}


def test_without_a_gradient_nothing_is_remembered() -> None:
    ours = table()
    with torch.no_grad():
        assert not look_up(ours, torch.tensor([3])).requires_grad
    (found,) = torch.autograd.grad(F.embedding(torch.tensor([3]), ours).sum(), ours)
    assert found.any()
    assert ours.grad is None


# ------------------------------------------------------------------------------------------------- processes


@pytest.fixture(scope="module")
def folder(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("rows")
    for size in SIZES:
        launcher.together(size, train_by_rows, str(found))
    return found


@pytest.mark.parametrize("case", CASES)
def test_one_process_ends_bit_identical_to_dense_gradients(case: str) -> None:
    found, wanted = trained(case, World(), by_rows=True), trained(case, World(), by_rows=False)
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []
    assert wanted["table.exp_avg"][30:].any()  # rows that one step touched go on moving


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", ["float32", "bfloat16", "searched"])
def test_several_processes_end_bit_identical_to_one_with_dense_gradients(folder: Path, case: str, size: int) -> None:
    wanted = trained(case, World(), by_rows=False)
    for rank in range(size):
        found = load_file(folder / f"{case}-{size}-{rank}.safetensors")
        assert found.keys() == wanted.keys()
        assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


@pytest.mark.parametrize("size", SIZES)
def test_clipping_sees_the_same_norms(folder: Path, size: int) -> None:
    """The whole gradient's norm, or that of each process, summed in another order."""
    wanted = trained("global clip", World(), by_rows=False)
    found = load_file(folder / f"global clip-{size}-0.safetensors")
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6)
    whole = load_file(folder / f"local clip-{size}-0-whole.safetensors")
    found = load_file(folder / f"local clip-{size}-0.safetensors")
    for name in whole:
        torch.testing.assert_close(found[name], whole[name], rtol=1e-5, atol=1e-6)
