"""Timing recipes to a target, through the command line."""

import json
from pathlib import Path

import pytest

from underpar.cli import main
from underpar.lab.target import in_turns

from .conftest import overrides

TIMED = overrides(
    ("budget.train_steps=4", "train.validate_every_steps=2", "train.warmup_steps=1", "budget.eval_seconds=None")
)


def race(home: Path, tokens: Path, target: str, *extra: str) -> int:
    arguments = ["run", "golf/baseline", *TIMED, "--set", f"evaluate.target_nats={target}", "--data", str(tokens)]
    return main([*arguments, "--device", "cpu", "--out", str(home), "--json", *extra])


def test_baseline_and_candidate_take_turns() -> None:
    order = list(in_turns(["a", "b"], [1, 2, 3]))
    assert order == [("a", 1), ("b", 1), ("b", 2), ("a", 2), ("a", 3), ("b", 3)]


def test_run_to_a_target(
    tmp_path: Path, byte_tokens: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seeds = ("--seeds", "1", "2")
    code = race(tmp_path / "runs", byte_tokens, "5.6", *seeds, "--baseline", "golf/longcontext2048")
    found = json.loads(capsys.readouterr().out)
    assert len(found["record"]["runs"]) == len(found["baseline"]["runs"]) == 2
    assert all(run["train_seconds"] > 0 for run in found["record"]["runs"])
    assert found["passes"] == (code == 0)
    assert not list(tmp_path.rglob("artifact.upar"))
    assert not list(tmp_path.rglob("*.safetensors"))
    race(tmp_path / "runs", byte_tokens, "5.6", *seeds)  # what is timed is not timed again
    assert json.loads(capsys.readouterr().out)["record"] == found["record"]
    folder = Path(found["folder"])
    assert folder.parent.name == "track_own_5.6"
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "baseline", "result.json", "run_seed1.txt", "run_seed2.txt",
    ]  # fmt: skip
    text = (folder / "run_seed1.txt").read_text()
    assert "# ---- underpar.train.loop\n" in text
    assert text.splitlines()[-1].startswith("step:4/4 val_loss:")

    runs = sorted(str(p) for p in (tmp_path / "runs" / "golf-baseline").glob("seed*"))
    assert main(["target", *runs, "--target", "0.5", "--json"]) == 1
    missed = json.loads(capsys.readouterr().out)
    assert missed["record"]["missed"] == 2
    assert [run["seconds_to_target"] for run in missed["record"]["runs"]] == [None] * 2
    trained = json.loads((Path(runs[0]) / "train.json").read_text())
    assert list(trained["breakdown"]) == ["start-up", "build", "rehearsal", "warm-up", "validation", "train"]
    assert trained["breakdown"]["start-up"] >= 0
    assert trained["first_step_ms"] > 0
    assert main(["target", *runs, "--target", "9", "--steps", "--json"]) == 0
    fewest = json.loads(capsys.readouterr().out)
    assert fewest["record"]["step"] == 2  # the first validation
    main(["target", *runs, "--target", "9", "--anchors", *runs, "--reference", "1.0", "--json"])
    calibrated = json.loads(capsys.readouterr().out)
    mean = sum(run["train_seconds"] for run in calibrated["record"]["runs"]) / 2
    assert calibrated["calibration"]["factor"] == pytest.approx(1.0 / mean)
    assert "no official time" in calibrated["calibrated"]


def test_wrong_uses_are_one_line(tmp_path: Path, byte_tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert race(tmp_path, byte_tokens, "5.0", "--baseline", "golf/baseline") == 2
    assert "is the recipe itself" in capsys.readouterr().err
    assert race(tmp_path, byte_tokens, "5.0", "--trained-as", "golf/seq4096") == 2
    assert "--trained-as golf/seq4096: golf/baseline has a target" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["run", "quickstart", "--baseline", "golf/baseline", "--out", str(tmp_path)]) == 2
    assert "--baseline is for recipes with a target" in capsys.readouterr().err
    assert main(["target", str(tmp_path), "--reference", "3.0"]) == 2
    assert "--anchors and --reference belong together" in capsys.readouterr().err
