"""A run that takes over the training of another."""

import json
import shutil
from pathlib import Path

import pytest

from underpar.core.errors import UnderparError
from underpar.core.world import World
from underpar.lab.adopt import adopt
from underpar.lab.files import RunFolder
from underpar.lab.outcome import run_summary
from underpar.lab.packing import pack_run
from underpar.lab.scoring import score_run
from underpar.lab.training import take_training
from underpar.recipes import registry
from underpar.records.logs import SerializedModel, TrainStep, read_log

from .conftest import Finished, overrides


def resolved(*extra: str):
    return registry.resolve("quickstart", overrides=[*overrides()[1::2], "seed=1", *extra])


def test_same_training_other_packing(finished: Finished, tmp_path: Path) -> None:
    trained, folder = finished.folders[0], RunFolder(tmp_path / "taken")
    data = finished.home / json.loads(trained.config.read_text())["data"]
    finer = "pack.quantiser=RoundToNearest(matrix=IntRows(bits=5))"
    take_training(resolved(finer), folder, trained, data, World())
    before, after = read_log(trained.log), read_log(folder.log)
    assert after.all(TrainStep) == before.all(TrainStep)
    assert not after.all(SerializedModel)
    packed = pack_run(folder)
    score_run(folder, data, World())
    assert packed["container_bytes"] < json.loads(trained.artifact_info.read_text())["container_bytes"]
    summary = run_summary(folder)
    assert summary["fingerprint"] != json.loads(trained.config.read_text())["fingerprint"]
    assert summary["unquantised_bpb"] == run_summary(trained)["unquantised_bpb"]
    assert summary["bpb"] != run_summary(trained)["bpb"]
    assert summary["no_effect"] == []  # training's settings were read, in the run that trained


def test_what_had_no_effect_on_the_training_has_none_here(finished: Finished, tmp_path: Path) -> None:
    trained, folder = RunFolder(tmp_path / "trained"), RunFolder(tmp_path / "taken")
    shutil.copytree(finished.folders[0].path, trained.path)
    effects = json.loads(trained.effects.read_text())
    (entry,) = [entry for entry in effects["settings"] if entry["path"] == "data.loader.seq_len"]
    entry |= {"matters": False, "why": "nobody looked"}
    trained.effects.write_text(json.dumps(effects))
    take_training(resolved(), folder, trained, finished.home / "data" / "sample_byte260", World())
    taken = {entry["path"]: entry for entry in json.loads(folder.effects.read_text())["settings"]}
    assert taken["data.loader.seq_len"] == entry
    assert taken["data.loader.batch_tokens"]["matters"] is True


def test_packing_on_text_of_the_models_own(finished: Finished, tmp_path: Path) -> None:
    """No training text is read, and no setting of the generated text is silent."""
    trained, folder, bare = finished.folders[0], RunFolder(tmp_path / "taken"), tmp_path / "without training text"
    data = finished.home / json.loads(trained.config.read_text())["data"]
    shutil.copytree(data, bare, ignore=shutil.ignore_patterns("*_train_*"))
    quantiser = "pack.quantiser=ByRule(rules=(Rule(precision=Gptq(bits=6)),))"
    text = ("pack.calibration=GeneratedText(document_tokens=12)", "pack.calibration_tokens=2048")
    take_training(resolved(quantiser, *text), folder, trained, bare, World())
    info = pack_run(folder)
    assert info["calibration_seconds"] > 0
    assert info["hessians"] > 0
    score_run(folder, data, World())
    assert not [path for path in run_summary(folder)["no_effect"] if path.startswith("pack.calibration")]


def test_other_training_is_refused_by_name(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(UnderparError, match=r"optim\.matrix\.lr"):
        adopt(resolved("optim.matrix.lr=0.033"), RunFolder(tmp_path), finished.folders[0])
    with pytest.raises(UnderparError, match="seed"):
        adopt(resolved(), RunFolder(tmp_path), finished.folders[1])


def test_a_run_cannot_take_over_itself(finished: Finished) -> None:
    with pytest.raises(UnderparError, match="itself"):
        adopt(resolved(), finished.folders[0], finished.folders[0])
