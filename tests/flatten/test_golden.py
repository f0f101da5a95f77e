"""The same run twice: by the package, and by the script that was made of it, where the package cannot be imported."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from underpar.core.world import World
from underpar.lab.files import RunFolder
from underpar.lab.flat import flat_script
from underpar.lab.packing import pack_run
from underpar.lab.scoring import score_run
from underpar.lab.training import train
from underpar.recipes import registry
from underpar.records.logs import CodeSize, FinalRoundtripExact, WorldSize, parse_line

TINY = (
    "data.tokenizer=Bytes", "model.vocab_size=260", "model.model_dim=32", "model.attention.num_heads=2",
    "model.attention.num_kv_heads=1", "budget.train_steps=20", "budget.train_seconds=None", "train.warmup_steps=2",
    "train.log_every_steps=1", "evaluate.batch_tokens=2048",
)  # fmt: skip
BASELINE = (
    *TINY,
    "data.loader=SequentialRows(batch_tokens=256,seq_len=64,spans=2)",
    "evaluate.window=Flat(context=64)",
)
LATE = (
    *TINY, "data.loader=DocumentPacking(batch_tokens=128,seq_len=64,spans=2)", "evaluate.window=Documents(context=64)",
    "pack.calibration_tokens=512", "model.num_layers=4", "model.topology.recurrence=Recurrence(first=1,last=2,passes=2)",
    "model.topology.lanes.first=3",
)  # fmt: skip
SEED = 7


def losses(log: str) -> list[str]:
    return re.findall(r"train_loss:(\S+)", log)


def scores(log: str) -> list[str]:
    """Every loss on held-out text, to the digits that are printed."""
    return re.findall(r"val_loss:(\S+) val_bpb:(\S+)", log)


def write_script(recipe: str, overrides: tuple[str, ...], folder: Path, *, readable: bool = False) -> Path:
    path = folder / "train_gpt.py"
    path.write_bytes(flat_script(registry.resolve(recipe, overrides=overrides).config, recipe, readable=readable).data)
    return path


def run_package(recipe: str, overrides: tuple[str, ...], byte_tokens: Path, folder: Path) -> RunFolder:
    resolved = registry.resolve(recipe, overrides=(*overrides, f"seed={SEED}"))
    run = RunFolder(folder)
    train(resolved, run, byte_tokens, World())
    pack_run(run)
    score_run(run, byte_tokens, World())
    return run


@pytest.fixture(scope="module")
def baseline(byte_tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_package("golf/baseline", BASELINE, byte_tokens, tmp_path_factory.mktemp("baseline"))


def check_equal(printed: str, run: RunFolder, script: Path) -> None:
    log, folder = run.log.read_text(), script.parent
    assert len(losses(printed)) == 20
    assert losses(printed) == losses(log)
    assert scores(printed) == scores(log)
    assert (folder / f"artifact_seed{SEED}.upar").read_bytes() == run.artifact.read_bytes()
    assert (folder / f"train_seed{SEED}.log").read_text() == printed
    lines = [parse_line(line) for line in printed.splitlines()]
    assert all(lines), "a line that is no published one"
    assert CodeSize(script.stat().st_size) in lines


def test_the_baseline_is_the_same_to_the_byte(
    baseline: RunFolder, byte_tokens: Path, alone: Path, python: Callable[..., str]
) -> None:
    """Twenty losses, every score, the artifact: by a script that a person can read."""
    script = write_script("golf/baseline", BASELINE, alone, readable=True)
    check_equal(
        python(script.name, "--data", str(byte_tokens), "--seed", str(SEED), "--device", "cpu"), baseline, script
    )


@pytest.mark.timeout(900)  # numba compiles the coder in a folder that has no cache
def test_the_last_record_is_the_same_to_the_byte(
    byte_tokens: Path, alone: Path, python: Callable[..., str], tmp_path: Path
) -> None:
    """The same of the packed script of the recipe that has the most in it."""
    script = write_script("golf/pr1855", LATE, alone)
    printed = python(script.name, "--data", str(byte_tokens), "--seed", str(SEED), "--device", "cpu")
    check_equal(printed, run_package("golf/pr1855", LATE, byte_tokens, tmp_path / "package"), script)


def test_two_processes_train_what_one_does(
    baseline: RunFolder, byte_tokens: Path, alone: Path, python: Callable[..., str]
) -> None:
    """Gradients add in another order, which moves the fourth digit at most."""
    script = write_script("golf/baseline", BASELINE, alone)
    start = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script.name)
    printed = python(*start, "--data", str(byte_tokens), "--seed", str(SEED), "--device", "cpu")
    lines = [parse_line(line) for line in printed.splitlines()]
    assert WorldSize(2, 1) in lines
    assert any(isinstance(line, FinalRoundtripExact) for line in lines), "it was not scored to the end"
    one = [float(loss) for loss in losses(baseline.log.read_text())]
    assert [float(loss) for loss in losses(printed)] == pytest.approx(one, abs=2e-3)
