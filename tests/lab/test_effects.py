"""A changed setting that changes nothing is found; one that changes something is never accused."""

import json
from pathlib import Path
from typing import Any

import pytest

from underpar.core.config import NonNegativeFloat, config
from underpar.core.world import World
from underpar.lab.build import build_trainer
from underpar.lab.effects import Effect, Watch, describe, reads_of, silent
from underpar.lab.files import RunFolder
from underpar.optim.averaging import SWA
from underpar.optim.muon import Muon
from underpar.optim.schedules import WarmdownSteps
from underpar.recipes import registry

TINY = (
    "data.tokenizer=Bytes", "model.vocab_size=260", "model.model_dim=32", "model.attention.num_heads=2",
    "model.attention.num_kv_heads=1", "data.loader.spans=1", "data.loader.seq_len=32", "data.loader.batch_tokens=64",
    "evaluate.window.context=64", "budget.train_steps=14", "budget.train_seconds=None", "train.warmup_steps=0",
)  # fmt: skip
"""Any recipe of the 16 MB game, made small: what its parent says otherwise and this does not cover stays as it is."""


LATER = ("pack.", "evaluate.adaptation", "budget.calibration_seconds")
"""What packing and scoring read; training in steps keeps no seconds for anything."""


@config
class VainMuon(Muon):
    """Has a setting that no code looks at."""

    vain: NonNegativeFloat = 0.0


def trained(data: Path, folder: RunFolder, name: str, *overrides: str) -> dict[str, Effect]:
    """Train a recipe as the pipeline does, write effects.json, and give what training shows."""
    resolved = registry.resolve(name, overrides=[*TINY, *overrides])
    watch = Watch(resolved)
    with watch.recording():
        trainer = build_trainer(resolved, data, World(), folder.path / "checkpoints")
    trainer.validate = None
    watch.rehearse(trainer, World())
    trainer.run()
    folder.path.mkdir(exist_ok=True)
    watch.write(folder, trainer)
    return {effect.path: effect for effect in watch.judge(trainer)}


@pytest.mark.parametrize("name", [name for name in registry.recipes if name.startswith("golf/")])
def test_no_registered_recipe_is_accused(name: str, byte_tokens: Path, tmp_path: Path) -> None:
    """What training cannot see belongs to packing, or to the limits of the other stages."""
    plain = registry.resolve(name).config
    in_steps = ["schedule.learning_rate.steps=10"] if isinstance(plain.schedule.learning_rate, WarmdownSteps) else []
    in_steps += ["averaging.every=2"] if isinstance(plain.averaging, SWA) else []
    found = trained(byte_tokens, RunFolder(tmp_path), name, *in_steps)
    assert [describe(e) for e in found.values() if e.matters is False] == []
    assert [e.path for e in found.values() if e.matters is None and not e.path.startswith(LATER)] == []
    assert found["data.loader.batch_tokens"].matters


IN_VAIN = [
    ("golf/baseline", "schedule.recurrence=FromFraction(fraction=0.35)", "schedule.recurrence", "no layer of the model recurs"),
    ("golf/recurrence", "schedule.recurrence=FromFraction(fraction=0)", "schedule.recurrence", "no value differed in the 14"),
    ("golf/baseline", "schedule.momentum=MomentumWarmup(start=0.5,steps=0)", "schedule.momentum.start", "no value differed"),
    ("golf/baseline", "schedule.weight_decay=DecayTaper(start=0.1)", "schedule.weight_decay", "Muon family is 0"),
    ("golf/wd_taper", "schedule.weight_decay.start=0.99", "schedule.weight_decay", "no value differed in the 14 steps"),
    ("golf/baseline", "schedule.fake_quantise=Never", "schedule.fake_quantise", "nothing quantises while training"),
    ("golf/baseline", "averaging=SWA(start_below=0.5,every=200)", "averaging", "the average is the last weights"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "override", "path", "why"), IN_VAIN)
def test_a_schedule_that_changes_nothing_is_found(
    name: str, override: str, path: str, why: str, byte_tokens: Path, tmp_path: Path
) -> None:
    found = trained(byte_tokens, RunFolder(tmp_path), name, override)
    assert found[path].matters is False
    assert why in found[path].why
    assert [effect.path for effect in silent(RunFolder(tmp_path))] == [path]


def test_settings_that_cannot_matter_together_are_told_apart(byte_tokens: Path, tmp_path: Path) -> None:
    """A quantiser that no step meets; a decay whose multiplier is always zero."""
    overrides = ("fake_quantise=FakeIntPerRow", "schedule.fake_quantise=Never")
    found = trained(byte_tokens, RunFolder(tmp_path), "golf/baseline", *overrides)
    assert (found["fake_quantise"].matters, found["fake_quantise"].why) == (False, "no step of this run quantised")
    assert found["schedule.fake_quantise"].matters  # without it every step would
    overrides = ("optim.matrix=Muon(lr=0.04,weight_decay=0.1)",)
    found = trained(byte_tokens, RunFolder(tmp_path / "decay"), "golf/baseline", *overrides)
    assert found["optim.matrix.weight_decay"].matters


def test_a_field_that_nothing_reads_is_found_when_all_stages_have_run(byte_tokens: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    overrides = ("optim.matrix=VainMuon(lr=0.03,vain=0.5)", "pack.codec=Brotli", "budget.eval_seconds=7")
    found = trained(byte_tokens, folder, "golf/baseline", *overrides)
    resolved = registry.resolve("golf/baseline", overrides=[*TINY, *overrides]).config
    assert {path for path, effect in found.items() if effect.matters is None} == {
        "optim.matrix.vain", "pack.codec", "budget.eval_seconds",
    }  # fmt: skip
    with reads_of(resolved, folder, "pack"):
        assert resolved.pack.codec.name == "brotli"
    assert settled(folder)["pack.codec"] is True
    assert settled(folder)["optim.matrix.vain"] is None
    with reads_of(resolved, folder, "score"):
        assert resolved.budget.eval_seconds == 7
    assert settled(folder)["budget.eval_seconds"] is True
    (effect,) = silent(folder)
    assert describe(effect) == "no effect: optim.matrix.vain: + 0.5 (nothing read it)"


def settled(folder: RunFolder) -> dict[str, Any]:
    return {entry["path"]: entry["matters"] for entry in json.loads(folder.effects.read_text())["settings"]}


def test_a_run_without_changes_has_nothing_to_rehearse(byte_tokens: Path) -> None:
    watch = Watch(registry.resolve("golf/baseline"))
    assert watch.against == "golf/baseline"
    watch.rehearse(None, World())  # type: ignore[arg-type]
