"""The record folder of the speedrun, from the fifteen published runs of the station recipe: read back, and by the audit."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from underpar.core.errors import RecordError
from underpar.records.run import load_run, tree_fingerprint
from underpar.records.speedrun import Arm, load_arm, render_log, write_speedrun
from underpar.records.speedrun_lines import RULE, StepsValidation, TimedStep, TimedValidation
from underpar.records.timed import official_seconds, timed_run
from underpar.referee.audit.folder import audit_folder

STATION = (
    (3.2779, 93.034), (3.2788, 93.036), (3.2791, 93.193), (3.2752, 93.071), (3.2752, 93.480), (3.2784, 92.932),
    (3.2779, 92.781), (3.2784, 93.245), (3.2777, 92.866), (3.2780, 93.388), (3.2804, 93.676), (3.2806, 93.319),
    (3.2786, 93.780), (3.2777, 93.188), (3.2776, 93.871),
)  # fmt: skip
"""Loss and seconds of modded-nanogpt PR #224."""
SOURCE = '"""A script."""\nval_tokens = 10485760\nprint(f"step:{step}/{steps} val_loss:{val_loss:.4f}")\n'


def make_run(folder: Path, seed: int, loss: float, seconds: float, steps: int = 1555, **settings: Any) -> Path:
    folder.mkdir(parents=True)
    tree = {"type": "Recipe", "seed": seed, "optim": {"type": "Optim", "lr": settings.get("lr", 0.023)}}
    config = {
        "recipe": settings.get("recipe", "speedrun/station"),
        "seed": seed,
        "fingerprint": tree_fingerprint(tree),
        "config": tree,
        "lineage": ["speedrun/record67", "speedrun/station"],
        "parent": "speedrun/record67",
        "summary": "A shorter window.",
        "command": f"torchrun --nproc_per_node=8 -m underpar run speedrun/station --seeds {seed}",
        "diff": [{"path": "schedule.stages", "old": "5", "new": "2"}],
    }
    environment = {
        "python": "3.12.7", "torch": "2.11.0+cu128", "cuda": "12.8", "gpu": "NVIDIA H100 80GB HBM3", "gpu_count": 8,
        "packages": {"triton": "3.6.0"},
        "machine": settings.get("machine", f"node{(seed - 1) // 5}"),
    }  # fmt: skip
    train = {
        "steps": steps, "tokens": 412_876_800, "train_seconds": seconds, "params": 539_100_296, "step_ms_median": 60.0,
        "tokens_per_second": 4.4e6, "peak_memory_bytes": 30_650 << 20, "stop_reason": settings.get("stop", "train_steps"),
        "paused_seconds": {"compile": 400.0, "validation": 21.0} | settings.get("paused", {}), "recompilations": 0,
        "validation": {"raw": {"loss_nats": loss, "bpb": 1.0}},
    }  # fmt: skip
    events: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 5):
        at = seconds * step / steps
        events.append({"event": "step", "step": step, "loss_nats": 4.0, "train_seconds": at})
        if step % 250 == 0 or step == steps:
            shown = loss + (steps - step) / 1000
            events.append({"event": "validation", "step": step, "loss_nats": shown, "train_seconds": at})
    for name, data in (("config", config), ("environment", environment), ("train", train)):
        (folder / f"{name}.json").write_text(json.dumps(data))
    (folder / "nvidia-smi.txt").write_text("|   0  NVIDIA H100 80GB HBM3          On  |\n")
    (folder / "train.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


@pytest.fixture
def station(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path / "runs" / f"seed{i}", i, *pair) for i, pair in enumerate(STATION, start=1)]


def write(out: Path, record: Arm, baseline: Arm | None = None, **settings: Any) -> Path:
    return write_speedrun(
        out, record, baseline, source_of=lambda run: SOURCE, author="somebody", name="Station", blurb="Shorter.",
        date="2026-02-10", **settings,
    )  # fmt: skip


def test_the_audit_reads_it_without_a_finding_and_with_the_published_p(station: list[Path], tmp_path: Path) -> None:
    old = [
        make_run(tmp_path / "old" / str(i), i, 3.2785, 96.0 + i / 50, recipe="old", machine="node0") for i in (1, 2, 3)
    ]
    folder = write(
        tmp_path / "records" / "track_1_short" / "2026-02-10_Station", load_arm(station, 3.28), load_arm(old, 3.28)
    )
    report = audit_folder(folder)
    assert report.track == "speedrun-small"
    assert not [check for check in report.verdict.checks if check.passed is not True]
    assert report.verdict.is_valid
    assert report.score is not None
    assert report.score.mean == pytest.approx(3.27810, abs=6e-6)
    assert len(report.seconds) == 15
    text = " ".join(rule.statement for rule in report.rules)
    assert re.search(r"p = 0\.0001|1\.\de-04", text)
    assert "3 control runs" in text
    assert all(rule.passed for rule in report.rules if "p < 0.01" in rule.statement)


def test_a_log_is_the_published_form(station: list[Path]) -> None:
    text = render_log(load_run(station[0]), SOURCE)
    source, environment, results = text.split(RULE + "\n")
    assert source == SOURCE
    assert environment.splitlines()[:3] == [
        "Running Python 3.12.7",
        "Running PyTorch 2.11.0+cu128 compiled for CUDA 12.8",
        "Running Triton version 3.6.0",
    ]
    lines = results.splitlines()
    assert lines[:2] == ["Compiling model and warming up kernels", "Resetting Model"]
    assert lines[-1] == "peak memory allocated: 30650 MiB reserved: 30650 MiB"
    assert lines[-2] == "step:1555/1555 val_loss:3.2779 train_time:93034ms step_avg:59.83ms"
    kinds = (TimedStep, TimedValidation)
    assert all(any(kind.PATTERN.fullmatch(line) for kind in kinds) for line in lines[2:-1])
    assert sum("val_loss" in line for line in lines) == 7
    published = r"^step:(\d+)/(\d+) val_loss:(\d\.\d{4}) train_time:(\d+)ms step_avg:([\d.]+)ms$"
    final = [m for line in lines if (m := re.match(published, line)) and m[1] == m[2]]
    assert [(m[3], m[4]) for m in final] == [("3.2779", "93034")]


def test_the_optimiser_track_has_five_digits_and_seconds(station: list[Path]) -> None:
    line = render_log(load_run(station[0]), SOURCE, counts_steps=True).splitlines()[-2]
    assert line == "step:1555/1555 val_loss:3.27790 train_time:93.034s step_avg:59.83ms"
    assert StepsValidation.PATTERN.fullmatch(line)


def test_the_readme_shows_misses_machines_and_the_baseline_timed_again(station: list[Path], tmp_path: Path) -> None:
    old = [make_run(tmp_path / "old" / str(i), i, 3.2785 - i / 1e4, 96.0 + i / 50, recipe="old") for i in range(1, 6)]
    ours = load_arm(station[:5], 3.28)
    text = (write(tmp_path / "a", ours, load_arm(old, 3.28)) / "README.md").read_text()
    assert "| this record | 5 | 0 | 1,555 | 93.163 | 0.189 | 3.27724 | 0.00191 | 0.016 |" in text
    assert "Welch" in text
    assert "significant at 0.01 (seconds to the target, on the same machine)" in text
    whole = (write(tmp_path / "b", load_arm(station, 3.28)) / "README.md").read_text()
    assert "13 of 15 runs reach 3.28" in whole
    assert "999999" in whole
    assert "| this record on node2 | 5 | 2 |" in whole
    assert "nothing is claimed about its time" in whole
    result = json.loads((tmp_path / "b" / "result.json").read_text())
    assert result["record"]["missed"] == 2
    assert result["record"]["test"]["p_value"] == pytest.approx(1.07e-4, rel=0.01)


def test_the_clock_that_counts_is_stopped_by_validation_alone(tmp_path: Path) -> None:
    """A checkpoint in the middle of a run is on the clock of the rules, whatever the budget's clock says."""
    run = load_run(make_run(tmp_path / "run", 1, 3.27, 93.0, paused={"checkpoint": 2.5}))
    assert timed_run(run).seconds == 95.5
    assert official_seconds({"train_seconds": 10.0, "paused_seconds": {"validation": 5.0}}) == 10.0


def test_what_is_no_record(station: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="differ in more than the seed"):
        load_arm([station[0], make_run(tmp_path / "x", 77, 3.27, 93.0, lr=0.02)], 3.28)
    with pytest.raises(RecordError, match="interrupted at step 1555"):
        load_arm([make_run(tmp_path / "y", 78, 3.27, 93.0, stop="interrupted")], 3.28)
    edited = json.loads((station[3] / "config.json").read_text())
    edited["config"]["optim"]["lr"] = 1.0
    (station[3] / "config.json").write_text(json.dumps(edited))
    with pytest.raises(RecordError, match="do not give its fingerprint"):
        load_arm([station[3]], 3.28)
    out = write(tmp_path / "z", load_arm(station[:2], 3.28))
    with pytest.raises(RecordError, match="exists; a record is written once"):
        write(out, load_arm(station[:2], 3.28))


def test_a_log_that_was_cut_off_is_refused(station: list[Path]) -> None:
    path = station[0] / "train.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RecordError, match="does not end with a validation"):
        render_log(load_run(station[0]), SOURCE)
