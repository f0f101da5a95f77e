"""The loop on a CUDA device: the host stays ahead, and every graph is made before the clock starts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from train_jobs import make_trainer

from underpar.core.budget import Budget
from underpar.core.world import World
from underpar.train.preparation import warm_up

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = World(device="cuda:0")


@pytest.fixture
def forbidden_waits() -> Iterator[None]:
    """Any operation that makes the host wait for the device is an error."""
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("stack", ["plain", "late"])
def test_the_host_waits_for_the_device_nowhere_in_a_step(
    tmp_path: Path, data: Path, stack: str, forbidden_waits: None
) -> None:
    """But for the event at the end of a step two steps back, which keeps the clock honest."""
    trainer = make_trainer(
        tmp_path, data, world=CUDA, stack=stack, precision="float32", compile=False, budget=Budget(train_steps=20)
    )
    warm_up(trainer)
    torch.cuda.set_sync_debug_mode("error")
    assert trainer._steps() == "train_steps"


@pytest.mark.parametrize("kind", ["rows", "packed"])
def test_nothing_compiles_while_the_clock_runs(tmp_path: Path, data: Path, kind: str) -> None:
    trainer = make_trainer(
        tmp_path, data, world=CUDA, stack="late", kind=kind, precision="float32", warmup_steps=4,
        budget=Budget(train_steps=20),
    )  # fmt: skip
    result = trainer.run()
    assert result.recompilations == 0
    assert result.paused_seconds["compile"] > 0
