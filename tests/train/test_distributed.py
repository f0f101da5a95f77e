"""Several processes agree: on numbers, on shares, and on when to stop."""

from pathlib import Path

import pytest
from train_jobs import agree_job, bad_job

from launcher import Launcher


@pytest.mark.parametrize("size", [2, 3])
def test_collectives_and_one_clock(launcher: Launcher, tmp_path: Path, size: int) -> None:
    launcher.together(size, agree_job, str(tmp_path))
    found = [eval(path.read_text()) for path in sorted(tmp_path.glob("agreed-*"))]
    assert len(found) == size
    for rank, (agreed, gathered, scattered, total, share) in enumerate(found):
        assert agreed == (100.0, 0.0, 1e-17)  # rank 0's, exactly, on every rank
        assert gathered == [float(r) for r in range(size) for _ in range(2)]
        assert scattered == [size * 2.0 * rank, size * (2.0 * rank + 1)]
        assert total == [float(size), sum(range(size))]
        assert share == list(range(10 * rank // size, 10 * (rank + 1) // size))


@pytest.mark.parametrize("bad_rank", [0, 1])
def test_a_bad_loss_on_one_process_stops_all(launcher: Launcher, data: Path, tmp_path: Path, bad_rank: int) -> None:
    launcher.together(2, bad_job, str(tmp_path), str(data), bad_rank)
    for rank in (0, 1):
        assert "non-finite loss at step 1" in (tmp_path / f"told-{rank}").read_text()
