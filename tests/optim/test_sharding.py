"""Several processes update as one does, and communicate while they compute."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from optim_jobs import (
    CASES,
    RESUMED,
    STEPS,
    Weights,
    everything,
    give_gradients,
    parts,
    settings_of,
    train_all_cases,
    trained,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from launcher import Launcher
from underpar.core.world import Pending, World
from underpar.optim.adam import Adam
from underpar.optim.mantissa import merge
from underpar.optim.muon import Muon
from underpar.optim.partition import Optim

SIZES = (2, 3)
TOLERANCE = {"bfloat16": 0.03}
"""Sums of bfloat16 parts round where one process does not; float32 parts differ by their rounding alone."""


@pytest.fixture(scope="module")
def folder(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What 2 and 3 processes made of every case."""
    found = tmp_path_factory.mktemp("optim")
    for case in RESUMED:
        save_file(everything(*trained(case, World(), last=2)), found / f"{case}-start.safetensors")
    for size in SIZES:
        launcher.together(size, train_all_cases, str(found))
    return found


def in_full(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights whose lower half is part of the state as the float32 that they are: half of a number is not close to another."""
    halves = {name.removesuffix(".mantissa") for name in state if name.endswith(".mantissa")}
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(".mantissa")}
    return kept | {name: merge(state[name], state[f"{name}.mantissa"]) for name in halves}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], case: str) -> None:
    assert found.keys() == wanted.keys()
    found, wanted = in_full(found), in_full(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        tolerance = max(TOLERANCE.get(case, 1e-5), 0.01 if value.dtype == torch.bfloat16 else 0.0)
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", [case for case in CASES if case not in ("LocalClip", "missing")])
def test_equal_to_one_process(folder: Path, case: str, size: int) -> None:
    found = load_file(folder / f"{case}-{size}-0.safetensors")
    assert_close(found, everything(*trained(case, World())), case)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_processes_end_bit_identical(folder: Path, case: str, size: int) -> None:
    first, *others = (load_file(folder / f"{case}-{size}-{rank}.safetensors") for rank in range(size))
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", RESUMED)
def test_state_saved_by_any_number_resumes_on_any_number(folder: Path, case: str, size: int) -> None:
    wanted = everything(*trained(case, World()))
    assert_close(load_file(folder / f"{case}-{size}-0-resumed.safetensors"), wanted, case)  # one process to several
    start = folder / f"{case}-{size}-halfway.safetensors"
    assert_close(everything(*trained(case, World(), first=2, start=start)), wanted, case)  # several to one


def one_process_on(grads_of_step: list[list[Tensor]], optim: Optim) -> dict[str, Tensor]:
    model = Weights()
    optimisers = optim.build(model, World())
    for step, grads in enumerate(grads_of_step):
        for param, grad in zip(model.parameters(), grads, strict=True):
            param.grad = grad.to(param.dtype)
        optimisers.step(settings_of(step))
    return everything(model, optimisers)


@pytest.mark.parametrize("size", SIZES)
def test_local_clip_is_the_average_of_each_process_own_clipped_mean(folder: Path, size: int) -> None:
    from optim_jobs import LIMIT, optim_of

    steps, cut = [], 0
    for step in range(STEPS):
        means = [[size * g.float() for g in part] for part in parts(Weights(), step, size)]
        clipped = []
        for mean in means:
            norm = torch.cat([g.flatten() for g in mean]).norm()
            cut += bool(norm > LIMIT)
            clipped.append([g * min(1.0, LIMIT / float(norm)) for g in mean])
        steps.append([sum(parts_of_one) / size for parts_of_one in zip(*clipped, strict=True)])
    assert 0 < cut < STEPS * size
    optim = optim_of("LocalClip")
    optim.clip = None
    assert_close(load_file(folder / f"LocalClip-{size}-0.safetensors"), one_process_on(steps, optim), "LocalClip")


@pytest.mark.parametrize("size", SIZES)
def test_a_gradient_missing_on_some_processes_counts_as_zero_there(folder: Path, size: int) -> None:
    from optim_jobs import is_missing, optim_of

    steps = []
    for step in range(STEPS):
        contributions = parts(Weights(), step, size)
        steps.append([
            sum(g.float() * (not is_missing("missing", step, i, rank)) for rank, g in enumerate(same))
            for i, same in enumerate(zip(*contributions, strict=True))
        ])  # fmt: skip
    found = load_file(folder / f"missing-{size}-0.safetensors")
    assert_close(found, one_process_on(steps, optim_of("missing")), "missing")


# ------------------------------------------------------------------------------------------------- overlap


@dataclass(frozen=True)
class Overheard(World):
    """The first of two processes, the other of which contributes nothing; notes when each collective starts and ends."""

    size: int = 2
    heard: list[str] = field(default_factory=list)

    def _pending(self, kind: str, tensor: Tensor, result: Tensor) -> Pending:
        label = f"{kind} {tuple(tensor.shape)}"
        self.heard.append(f"start {label}")

        class Work:
            def wait(work) -> None:
                self.heard.append(f"end {label}")

        return Pending(result, Work())

    def start_sum_(self, tensor: Tensor) -> Pending:
        return self._pending("sum", tensor, tensor)

    def start_reduce_scatter(self, stacked: Tensor) -> Pending:
        return self._pending("scatter", stacked, stacked[: len(stacked) // 2])

    def start_all_gather(self, shard: Tensor) -> Pending:
        return self._pending("gather", shard, torch.cat([shard, torch.zeros_like(shard)]))


def test_communication_runs_behind_the_arithmetic() -> None:
    """All reductions start before any is awaited, large shapes first; Adam works meanwhile; gathers land one shape late."""
    world = Overheard()
    model = Weights()
    optim = Optim(matrix=Muon(), embedding=Adam(), gain=Adam(), gate=Adam())
    optimisers = optim.build(model, world)
    give_gradients(model, "Muon", 0, World())
    optimisers.step(settings_of(0))
    small, large, middle = "(2, 12, 6)", "(4, 12, 12)", "(2, 24, 12)"
    sums = ["sum (20, 12)", "sum (48,)", "sum (4, 6)"]
    assert world.heard == [
        *(f"start {label}" for label in sums),
        *(f"start scatter {shape}" for shape in (large, middle, small)),
        *(f"end {label}" for label in sums),
        f"end scatter {large}", "start gather (2, 12, 12)",
        f"end scatter {middle}", "start gather (1, 24, 12)", "end gather (2, 12, 12)",
        f"end scatter {small}", "start gather (1, 12, 6)", "end gather (1, 24, 12)",
        "end gather (1, 12, 6)",
    ]  # fmt: skip
