"""A run whose text ends before its budget says so and loses nothing."""

import shutil
from pathlib import Path

import pytest
import torch
from train_jobs import make_trainer, weights

from support import BOS
from underpar.core.errors import Exhausted
from underpar.core.world import World
from underpar.data.aligned import AlignedDocuments
from underpar.data.loaders import StepLoader
from underpar.train.checkpoint import complete_checkpoints
from underpar.train.loop import Trainer


def trainer(folder: Path, data: Path) -> Trainer:
    chosen = AlignedDocuments(batch_tokens=192, seq_len=16, spans=6).frozen()
    loader = StepLoader(data, chosen, BOS, World(), micro_batch_tokens=64)
    return make_trainer(folder, data, loader=loader)


def test_with_more_shards_the_run_goes_on_as_if_they_had_been_there(data: Path, tmp_path: Path) -> None:
    first, *others = sorted(data.iterdir())
    short = tmp_path / "short"
    short.mkdir()
    shutil.copy(first, short)
    stopped = trainer(tmp_path / "run", short)
    with pytest.raises(Exhausted, match=r"shards are used up.*; \d+ steps are kept") as told:
        stopped.run()
    assert "\n" not in str(told.value)
    assert 1 <= stopped.step < 12
    assert complete_checkpoints(stopped.folder)[-1].name == f"step-{stopped.step:08d}"

    for shard in others:
        shutil.copy(shard, short)
    again, whole = trainer(tmp_path / "run", short), trainer(tmp_path / "whole", short)
    assert again.resume()
    assert again.step == stopped.step
    for run in (again, whole):
        run.run()
        assert run.step == 12
    assert all(torch.equal(a, b) for a, b in zip(weights(again).values(), weights(whole).values(), strict=True))
