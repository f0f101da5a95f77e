"""A run whose packed model learns while it is scored, from training to the verdict, and its artifact in other modes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from underpar.cli import main
from underpar.core.errors import ConfigError
from underpar.core.units import BITS_PER_NAT
from underpar.core.world import World
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import load_validation
from underpar.evaluate.adaptation import AdapterAdamW, DocumentTTT, PhasedTTT, SequentialTTT
from underpar.evaluate.load import load_model
from underpar.lab.adaptive import chosen_adaptation
from underpar.lab.files import RunFolder
from underpar.lab.outcome import outcome_lines, run_summary
from underpar.lab.packing import pack_run
from underpar.lab.scoring import Scoring, score_run
from underpar.lab.training import train
from underpar.nn.adapters import LoRA
from underpar.recipes import registry
from underpar.records.run import load_run
from underpar.referee.adapted import AdaptedPredictor

from .conftest import TINY

ADAPTATION = (
    "PhasedTTT(lora=LoRA(rank=4), optimiser=AdapterAdamW(lr=0.01), context=64, chunk_tokens=16, prefix_documents=1, phases=1, "
    "sgd=GlobalSGD(chunk_tokens=32, context=32))"
)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, byte_tokens: Path) -> RunFolder:
    """Trained, packed and scored."""
    folder = RunFolder(tmp_path_factory.mktemp("adapted") / "run")
    resolved = registry.resolve("quickstart", overrides=[*TINY, f"evaluate.adaptation={ADAPTATION}"])
    world = World(device="cpu")
    train(resolved, folder, byte_tokens, world)
    pack_run(folder)
    score_run(folder, byte_tokens, world)
    return folder


def scored(folder: RunFolder, data: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    arguments = ["score", str(folder.artifact), "--data", str(data), "--json", "--device", "cpu", *options]
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_the_score_is_the_adapted_one_and_the_other_stands_beside_it(adapted: RunFolder, byte_tokens: Path) -> None:
    found = json.loads(adapted.score.read_text())
    assert found["adaptation"].startswith("PhasedTTT(")
    assert found["bpb"] != found["before_adaptation"]["bpb"]
    assert found["plain_targets"] == 0
    assert "sgd chunk" in found["measured_seconds"]  # the recipe has a budget, so there was a plan
    summary = run_summary(adapted)
    assert summary["bpb"] == found["bpb"]
    assert summary["before_adaptation_bpb"] == found["before_adaptation"]["bpb"]
    line = outcome_lines(adapted, summary | {"verdict": "?"})[1]
    assert f"{found['before_adaptation']['bpb']:.4f} before adaptation" in line
    (run,) = [load_run(adapted.path)]
    assert run.log.final is not None
    assert run.log.final.val_bpb == pytest.approx(found["bpb"], abs=6e-9)


def test_every_setting_of_the_adaptation_was_seen_to_matter(adapted: RunFolder) -> None:
    found = json.loads(adapted.effects.read_text())["settings"]
    paths = {entry["path"]: entry["matters"] for entry in found if entry["path"].startswith("evaluate.adaptation")}
    assert paths == dict.fromkeys(paths, True)
    assert {"evaluate.adaptation"} <= paths.keys()


def test_the_artifact_alone_scores_the_same(
    adapted: RunFolder, byte_tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = json.loads(adapted.score.read_text())
    assert scored(adapted, byte_tokens, capsys)["bits"] == pytest.approx(recorded["bits"], rel=1e-9)
    plain = scored(adapted, byte_tokens, capsys, "--mode", "plain")
    assert plain["adaptation"] is None
    assert plain["bpb"] == pytest.approx(recorded["before_adaptation"]["bpb"], rel=1e-9)
    without_phases = scored(adapted, byte_tokens, capsys, "--mode", "ttt", "--set", "optimiser.lr=0.0")
    assert without_phases["adaptation"].startswith("DocumentTTT(lora=LoRA(rank=4), optimiser=AdapterAdamW(lr=0)")
    sequential = scored(
        adapted, byte_tokens, capsys, "--mode", "sequential", "--set", "context=32", "--set", "chunk_tokens=64",
        "--set", "stride=8",
    )  # fmt: skip
    assert sequential["adaptation"] == "SequentialTTT(context=32, stride=8, chunk_tokens=64)"
    assert main(["score", str(adapted.artifact), "--data", str(byte_tokens), "--budget", "0"]) == 2
    assert "give seconds above 0" in capsys.readouterr().err


def test_another_mode_leaves_the_run_as_it_was(adapted: RunFolder, byte_tokens: Path) -> None:
    before = adapted.score.read_bytes(), adapted.log.read_bytes()
    score_run(adapted, byte_tokens, World(device="cpu"), Scoring("plain"))
    assert (adapted.score.read_bytes(), adapted.log.read_bytes()) == before


def test_the_predictor_of_the_referee_repeats_the_adapted_score(adapted: RunFolder, byte_tokens: Path) -> None:
    loaded, stream = load_model(adapted.artifact), load_validation(byte_tokens)
    assert loaded.adaptation is not None
    predictor = AdaptedPredictor(loaded.model, loaded.adaptation, 260, load_tokenizer(byte_tokens).bos_id)
    charges = predictor.charges(stream.tokens)
    assert charges.sum() * BITS_PER_NAT == pytest.approx(json.loads(adapted.score.read_text())["bits"], rel=1e-9)
    np.testing.assert_array_equal(charges, predictor.charges_after(stream.tokens[:9], stream.tokens))


def test_a_mode_takes_over_what_it_shares_with_the_record() -> None:
    recorded = PhasedTTT(lora=LoRA(rank=5), optimiser=AdapterAdamW(lr=0.5), chunk_tokens=7).frozen()
    found = chosen_adaptation(recorded, "ttt", ["slots=9"])
    assert type(found) is DocumentTTT
    assert (found.lora.rank, found.optimiser.lr, found.chunk_tokens, found.slots) == (5, 0.5, 7, 9)
    assert chosen_adaptation(recorded) == recorded
    assert chosen_adaptation(recorded, "plain") is None
    assert chosen_adaptation(None) is None
    assert chosen_adaptation(recorded, "sequential") == SequentialTTT().frozen()
    back = chosen_adaptation(found, "phased")
    assert isinstance(back, PhasedTTT)
    assert back.lora.rank == 5


@pytest.mark.parametrize(
    ("mode", "overrides", "message"),
    [
        ("tt", (), "no mode 'tt'; did you mean 'ttt'"),
        (None, ("slots=2",), "add --mode ttt"),
        ("ttt", ("lora.rnk=2",), "did you mean 'rank'"),
    ],
)
def test_what_cannot_be_chosen_is_refused(mode: str | None, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen_adaptation(None, mode, overrides)
