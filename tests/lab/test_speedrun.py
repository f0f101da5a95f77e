"""A record of the speedrun at toy size through the one loop, and settings in the wrong place."""

import json
from pathlib import Path

import pytest
import torch

from underpar.cli import main
from underpar.core.config import from_dict, to_dict
from underpar.core.recipe import Resolved
from underpar.core.world import World
from underpar.data.loaders import StepLoader
from underpar.data.sample import sample_documents
from underpar.data.shards import write_shard
from underpar.data.tokenizers import Bytes
from underpar.lab.build import build_model
from underpar.lab.effects import Effect, Watch, describe
from underpar.optim.partition import Optim
from underpar.recipes import Recipe, registry
from underpar.train.events import Sinks
from underpar.train.loop import Trainer

BRIEF = (
    "budget.train_steps=13", "schedule.stages.extension_steps=1", "data.tokenizer=Bytes", "model.vocab_size=260",
    "model.model_dim=48", "model.bigram.buckets=600", "data.loader.spans=1",
)  # fmt: skip


def resolved(*overrides: str, name: str = "speedrun/record67") -> Resolved[Recipe]:
    return registry.resolve(name, track="speedrun-toy", overrides=[*BRIEF, *overrides])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training shards of bytes of the bundled text."""
    folder = tmp_path_factory.mktemp("bytes")
    tokenizer = Bytes().build()
    parts, total = [], 0
    for document in sample_documents("train"):
        ids = torch.tensor([tokenizer.bos_id, *tokenizer.encode_ids(document.text)[:80].tolist()])
        parts.append(ids)
        total += len(ids)
        if total > 40_000:
            break
    write_shard(folder / "fineweb_train_000000.bin", torch.cat(parts).numpy().astype("uint16"))
    return folder


def trainer_of(run: Resolved[Recipe], data: Path, folder: Path) -> Trainer:
    config, world = run.config, World()
    model = build_model(config, world)
    loader = StepLoader(
        data, config.data.loader, Bytes().build().bos_id, world, micro_batch_tokens=config.train.micro_batch_tokens
    )
    return Trainer(
        model=model, optimisers=config.optim.build(model, world), schedule=config.schedule, budget=config.budget,
        loader=loader, training=config.train, world=world, folder=folder, fingerprint="toy", sinks=Sinks(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    made = trainer_of(resolved(), data, tmp_path_factory.mktemp("run"))
    made.run()
    return made


def test_a_record_trains_through_all_its_stages(trained: Trainer) -> None:
    """Four steps a stage, one of extension: what consumers were seen to use, at the step where it changed."""
    trace = trained.trace.changes
    assert trace["train.batch_tokens"] == [[1, 512.0], [5, 1024.0], [9, 1536.0]]
    assert trace["train.seq_len"] == [[1, 64.0]]
    assert trace["phase.windows.short"] == [[1, 4.0], [5, 12.0], [9, 20.0], [13, 24.0]]
    assert trace["phase.windows.long"] == [[1, 12.0], [5, 28.0], [9, 44.0], [13, 52.0]]
    assert [step for step, _ in trace["train.target_weight_3"]] == [1, 2, 3, 4]
    assert trained.step == 13
    assert trained.tokens == 4 * (512 + 1024 + 1536) + 1536


def test_a_record_goes_through_every_stage_of_a_run(
    byte_tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line: trained, packed, scored and verified; nothing is accused of having no effect.

    The two held-out documents repeat sentences of the others, which the referee finds in the run's own shards and disputes.
    """
    brief = [*BRIEF, "data.loader.epochs=9", "budget.train_steps=7"]
    settings = [part for text in brief for part in ("--set", text)]
    where = ["--data", str(byte_tokens), "--device", "cpu", "--out", str(tmp_path), "--json"]
    assert main(["run", "speedrun/record71", "--track", "speedrun-toy", *settings, *where]) == 1
    printed = capsys.readouterr()
    assert "no effect" not in printed.err
    assert "512 to 1,536 tokens a step" in printed.err
    assert "(of 3 targets)" in printed.err
    found = json.loads(printed.out)["runs"][0]
    assert found["verdict"].startswith("disputed (G5, data.overlap): 0 of 2 held-out documents")
    verdict = json.loads((Path(found["run"]) / "verdict.json").read_text())
    assert [check["id"] for check in verdict["checks"] if check["passed"] is False] == ["data.overlap"]
    effects = json.loads((Path(found["run"]) / "effects.json").read_text())["settings"]
    assert [effect["path"] for effect in effects if effect["matters"] is not True] == []


def test_a_record_learns(trained: Trainer) -> None:
    """The last stage's loss is the plain one: below that of a uniform guess."""
    assert trained._last_loss < 5.0


def test_embedding_and_head_part_in_the_third_stage(trained: Trainer) -> None:
    tie = trained.optimisers.tie
    assert tie is not None
    assert not tie.together
    assert not torch.equal(tie.embedding, tie.head)


def test_a_setting_that_the_table_shadows_is_reported(data: Path, tmp_path: Path) -> None:
    """The published mistake: a size set where no step of training reads it."""
    run = resolved(
        "data.loader.seq_len=16", "model.attention.windows.short=8", "schedule.stages.stages[2].short_window=2",
        "data.loader.epochs=9",
    )  # fmt: skip
    found = judged(run, data, tmp_path)
    assert found["data.loader.seq_len"].matters is False
    assert "every step was cut as schedule.stages says" in describe(found["data.loader.seq_len"])
    windows = found["model.attention.windows.short"]
    assert windows.matters is None  # until scoring has read it
    assert describe(windows).startswith(
        "no effect on training: model.attention.windows.short: 768 -> 8 (no step of training"
    )
    epochs = found["data.loader.epochs"]
    assert (epochs.matters, epochs.why) == (False, "the text was not gone through once")
    right = found["schedule.stages.stages[2].short_window"]
    assert (right.matters, right.why) == (True, "made a difference from step 9 on")


def test_gradients_by_rows_are_observed_and_what_the_track_sets_is_no_mistake(data: Path, tmp_path: Path) -> None:
    effects = judged(resolved(name="speedrun/record71"), data, tmp_path)
    found = effects["model.bigram"]
    assert (found.matters, found.why) == (True, "gradients came by rows from step 2 on")
    assert effects["model.attention.windows.short"].why == "the size of scoring"
    assert [describe(effect) for effect in effects.values() if effect.matters is False] == []


def test_a_model_that_makes_them_whole_all_the_same_is_reported(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underpar.nn.rows.keeps_rows", lambda table: False)
    found = judged(resolved(name="speedrun/record71"), data, tmp_path)["model.bigram"]
    assert (found.matters, found.why) == (False, "every gradient was made whole")


def judged(run: Resolved[Recipe], data: Path, folder: Path) -> dict[str, Effect]:
    watch = Watch(run)
    with watch.recording():
        trainer = trainer_of(run, data, folder)
    watch.rehearse = lambda *_: None  # type: ignore[method-assign]
    trainer.run()
    return {effect.path: effect for effect in watch.judge(trainer)}


def test_the_recipes_survive_the_way_through_json() -> None:
    for name in registry.recipes:
        if name.startswith("speedrun/"):
            config = registry.resolve(name).config
            assert from_dict(to_dict(config), Recipe) == config
            assert isinstance(config.optim, Optim)
