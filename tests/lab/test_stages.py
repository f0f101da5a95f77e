"""Every stage of a run, on real text, and what it leaves behind."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from underpar.cli import main
from underpar.lab.files import RunFolder
from underpar.lab.outcome import outcome_lines, run_summary
from underpar.recipes import registry
from underpar.records.logs import FinalRoundtripExact, Seed, TotalSize, TrainStep, Validation, read_log
from underpar.train.loop import Trainer
from underpar.train.process import Interrupts

from .conftest import Finished, overrides


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_every_stage_leaves_its_files(finished: Finished) -> None:
    folder = finished.folders[0]
    for name in (
        "config",
        "environment",
        "events",
        "log",
        "trace",
        "train",
        "artifact",
        "artifact_info",
        "code",
        "score",
    ):
        assert getattr(folder, name).exists(), name
    assert read(folder.verdict)["verdict"] == "valid"
    page = (finished.home / finished.printed["report"]).read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")


def test_the_printed_figures_are_those_of_the_files(finished: Finished) -> None:
    for folder, summary in zip(finished.folders, finished.printed["runs"], strict=True):
        score, info = read(folder.score), read(folder.artifact_info)
        assert summary["bpb"] == score["bpb"] == score["bits"] / score["bytes"]
        assert info["container_bytes"] == folder.artifact.stat().st_size
        assert info["code_bytes"] == folder.code.stat().st_size
        assert summary["artifact_bytes"] == info["container_bytes"] + info["code_bytes"]
        documents = np.load(folder.documents)
        assert documents["bits"].sum() == pytest.approx(score["bits"], rel=1e-12)
        assert documents["bytes"].sum() == score["bytes"]


def test_the_log_has_the_published_lines_with_the_same_figures(finished: Finished) -> None:
    folder = finished.folders[1]
    log, score, info = read_log(folder.log), read(folder.score), read(folder.artifact_info)
    assert log.seed == 2
    assert [type(line) for line in log.lines].count(Seed) == 1
    assert log.last(TrainStep).step == 10  # the first ten steps, then every tenth
    assert [line.step for line in log.lines if isinstance(line, Validation)] == [6, 12]
    trained = read(folder.train)["validation"]["raw"]
    assert log.last(Validation).val_bpb == pytest.approx(trained["bpb"], abs=5e-5)
    assert trained["bpb"] == pytest.approx(score["bpb"], abs=0.01)  # eight bits a weight cost next to nothing
    assert log.last(TotalSize).total_bytes == info["artifact_bytes"]
    assert log.last(TotalSize).label == "int8+brotli"
    assert log.last(FinalRoundtripExact).val_bpb == pytest.approx(score["bpb"], abs=5e-9)


def test_the_trace_holds_what_was_consumed(finished: Finished) -> None:
    trace = read(finished.folders[0].trace)
    rates = [value for _, value in trace["optim.matrix.lr"]]
    assert rates[0] == 0.02 * 1.0 or rates[0] > rates[-1]
    assert trace["train.batch_tokens"] == [[1, 512]]


def test_every_override_was_seen_to_matter(finished: Finished) -> None:
    found = read(finished.folders[1].effects)
    assert found["against"] == "quickstart"
    assert found["stages"] == ["train", "pack", "score"]
    assert {entry["path"] for entry in found["settings"]} >= {"seed", "model.model_dim", "evaluate.window"}
    assert [entry for entry in found["settings"] if not entry["matters"]] == []
    assert finished.printed["runs"][1]["no_effect"] == []


def test_a_person_reads_what_had_no_effect_and_the_score_before_quantisation(
    finished: Finished, tmp_path: Path
) -> None:
    folder, summary = RunFolder(tmp_path / "run"), finished.printed["runs"][0]
    shutil.copytree(finished.folders[0].path, folder.path)
    vain = {"path": "model.mlp.ratio", "old": "3", "new": "2", "matters": False, "why": "nothing read it"}
    folder.effects.write_text(json.dumps({"settings": [vain]}))
    lines = outcome_lines(folder, summary)
    assert lines[-1] == "no effect: model.mlp.ratio: 3 -> 2 (nothing read it)"
    bpb = read(folder.train)["validation"]["raw"]["bpb"]
    assert f"; {bpb:.4f} before quantisation" in lines[1]
    both = outcome_lines(folder, summary | {"unquantised_bpb": {"raw": 2.0, "averaged": 1.5}})
    assert "; 1.5000 before quantisation (the last weights alone 2.0000)" in both[1]


def test_several_seeds_make_a_record_that_reads_back(finished: Finished) -> None:
    from underpar.records import read_record

    record = read_record(finished.home / finished.printed["record"])
    assert set(record.submission["seed_results"]) == {"1", "2"}


def test_the_reproduction_command_reproduces(finished: Finished) -> None:
    command = read(finished.folders[0].config)["command"]
    words = [word.strip("'") for word in command.split()]
    assert words[:3] == ["underpar", "run", "quickstart"]
    texts = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    seed = words[words.index("--seeds") + 1]
    resolved = registry.resolve("quickstart", overrides=[*texts, f"seed={seed}"])
    assert resolved.fingerprint == read(finished.folders[0].config)["fingerprint"]


def test_pack_and_score_alone_give_the_same_again(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.folders[0]
    before, score = folder.artifact.read_bytes(), read(folder.score)
    data = finished.home / "data" / "sample_byte260"
    assert main(["score", str(folder.artifact), "--data", str(data), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["bits"] == pytest.approx(score["bits"], rel=1e-6)
    assert folder.artifact.read_bytes() == before


def test_the_counted_source_alone_can_load_and_score(finished: Finished, tmp_path: Path) -> None:
    """Unpacked beside nothing else of underpar, in an isolated interpreter, it gives the run's own bits."""
    folder = finished.folders[0]
    with tarfile.open(folder.code) as archive:
        archive.extractall(tmp_path, filter="data")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import underpar.evaluate.load as load, underpar.evaluate.score as score
from underpar.data.validation import load_validation
assert load.__file__.startswith({str(tmp_path)!r}), load.__file__
found = load.load_model(__import__("pathlib").Path({str(folder.artifact)!r}))
stream = load_validation({str(finished.home / "data" / "sample_byte260")!r})
print(score.score(found.model, stream, found.window, bos_id=1, batch_tokens=2048).bits)
print(sorted(n for n in sys.modules if n.startswith(("underpar.train", "underpar.recipes", "underpar.lab"))))
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    bits, loaded = done.stdout.splitlines()
    assert float(bits) == pytest.approx(read(folder.score)["bits"], rel=1e-6)
    assert loaded == "[]"


def test_an_artifact_over_its_budget_is_refused_with_advice(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(finished.folders[0].path, copy.path)
    config = read(copy.config)
    config["config"]["budget"]["artifact_bytes"] = 40_000
    config["data"] = str(finished.home / config["data"])
    copy.config.write_text(json.dumps(config))
    assert main(["pack", str(copy.path)]) == 2
    message = capsys.readouterr().err
    assert "limit 40,000" in message
    assert "Largest:" in message


def test_a_finished_training_is_not_repeated(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.home)
    before, events = read(finished.folders[0].train), finished.folders[0].events.read_bytes()
    assert main(["train", "quickstart", *overrides(), "--seed", "1", "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == before["steps"] == 12
    assert read(finished.folders[0].train) == before
    assert finished.folders[0].events.read_bytes() == events


def test_a_finished_training_takes_no_step_more_though_its_clock_had_room(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run stops before a step that might pass the limit; asked again, without the paces of that day, it might dare one."""
    monkeypatch.chdir(finished.home)
    monkeypatch.setattr(Trainer, "is_finished", property(lambda trainer: False))
    before = read(finished.folders[0].train)
    assert main(["train", "quickstart", *overrides(), "--seed", "1", "--device", "cpu"]) == 0
    assert "already trained, 12 steps" in capsys.readouterr().err
    assert read(finished.folders[0].train) == before
    assert finished.folders[0].artifact.exists()


class Asked(Interrupts):
    """An interrupt that came before the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = True


def test_an_interrupted_training_says_so_exits_with_130_and_goes_on(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "quickstart", *overrides(), "--data", str(finished.home / "data" / "sample_byte260")]
    words += ["--out", str(tmp_path), "--device", "cpu"]
    with monkeypatch.context() as interrupting:
        interrupting.setattr("underpar.train.loop.Interrupts", Asked)
        assert main(words) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("interrupted at step 1; a checkpoint is in ")
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 12


def test_fresh_training_leaves_no_score_of_other_weights(finished: Finished, tmp_path: Path) -> None:
    run = RunFolder.of(tmp_path, "quickstart", 1)
    shutil.copytree(finished.folders[0].path, run.path)
    words = [*overrides(("budget.train_steps=2",)), "--data", str(finished.home / "data" / "sample_byte260")]
    assert (
        main(["train", "quickstart", *words, "--seed", "1", "--out", str(tmp_path), "--fresh", "--device", "cpu"]) == 0
    )
    assert read(run.train)["steps"] == 2
    left = {path.name for path in run.path.iterdir()}
    assert not left & {"artifact.upar", "artifact.json", "code.tar.xz", "score.json", "documents.npz", "verdict.json"}


def test_a_log_tells_of_one_artifact_and_one_score(finished: Finished, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished.folders[0].path, run.path)
    config = read(run.config)
    config["data"] = str(finished.home / config["data"])
    run.config.write_text(json.dumps(config))
    once = [type(line) for line in read_log(run.log).lines]
    for verb in ("pack", "score"):
        assert main([verb, str(run.path)]) == 0
    assert [type(line) for line in read_log(run.log).lines] == once
    assert read_log(run.log).last(FinalRoundtripExact).val_bpb == pytest.approx(read(run.score)["bpb"], abs=5e-9)


def test_a_scoring_over_its_seconds_is_said_by_every_verb(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished.folders[0].path, run.path)
    config = read(run.config)
    config["data"] = str(finished.home / config["data"])
    config["config"]["budget"]["eval_seconds"] = 0.001
    run.config.write_text(json.dumps(config))
    assert main(["score", str(run.path), "--device", "cpu"]) == 0
    assert "over the budget of 0.001 s" in capsys.readouterr().out
    assert main(["verify", str(run.path)]) == 1
    assert "INVALID (G3, time.budget; looks like V21" in capsys.readouterr().out
    assert main(["verify", str(run.path), "--json"]) == 1
    assert "time.budget" in json.loads(capsys.readouterr().out)["reason"]
    summary = run_summary(run) | {"verdict": "invalid"}
    assert "over the budget of" in "\n".join(outcome_lines(run, summary))
    assert summary["eval_seconds"] > summary["budget_eval_seconds"]
