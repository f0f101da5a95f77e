"""Optional sinks, behind one interface."""

import sys
import types
from pathlib import Path

import pytest

from underpar.core.errors import ConfigError
from underpar.train.sinks import open_sinks

STEP = {"event": "step", "step": 3, "loss_nats": 2.5, "tokens": 96, "lr_scale": 1.0}


def test_tensorboard_gets_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (sink,) = open_sinks(["tensorboard"], tmp_path, "run")
    sink.log(STEP)
    sink.close()
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    (scalar,) = reader.Scalars("step/loss_nats")
    assert (scalar.step, scalar.value) == (3, 2.5)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_run_loggers_get_numbers_by_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple] = []
    fake = types.ModuleType(name)
    fake.init = lambda **options: calls.append(("init", options))  # type: ignore[attr-defined]
    fake.log = lambda numbers, step: calls.append(("log", numbers, step))  # type: ignore[attr-defined]
    fake.finish = lambda: calls.append(("finish",))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, fake)
    (sink,) = open_sinks([name], tmp_path, "run")
    sink.log(STEP)
    sink.close()
    assert calls[0] == ("init", {"project": "underpar", "name": "run"})
    assert calls[1] == ("log", {"step/loss_nats": 2.5, "step/tokens": 96.0, "step/lr_scale": 1.0}, 3)
    assert calls[2] == ("finish",)


def test_unknown_and_missing_sinks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        open_sinks(["wandbb"], tmp_path, "run")
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match="pip install trackio"):
        open_sinks(["trackio"], tmp_path, "run")
