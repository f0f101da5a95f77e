"""The verb: a run folder in, a verdict out, exit codes that a script can rely on."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from underpar.cli import verify as verb
from underpar.core.errors import ConfigError, DataError
from underpar.data.shards import write_shard
from underpar.data.tokenizer_base import ByteTokenizer

from .conftest import Honest


def arguments(*words: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verb.configure(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture
def run_folder(honest: Honest, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(honest.artifact, folder / "artifact.upar")
    shutil.copy(honest.code, folder / "code.tar.xz")
    (folder / "score.json").write_text(json.dumps(honest.score))
    (folder / "artifact.json").write_text(json.dumps(honest.sizes))
    (folder / "environment.json").write_text(json.dumps({"gpu": None}))
    return folder


def test_a_run_folder_without_raw_text_is_unverifiable_and_keeps_its_verdict(
    honest: Honest, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = verb.run(
        arguments(run_folder, "--data", honest.tokenizer, "--json", "--seed", "5", "--limit-bytes", "999999")
    )
    printed = json.loads(capsys.readouterr().out)
    assert code == 4
    assert printed["verdict"] == "unverifiable"
    assert printed["subject"]["command"].endswith(f"--data {honest.tokenizer} --limit-bytes 999999 --seed 5")
    assert json.loads((run_folder / "verdict.json").read_text()) == printed


def test_single_files_with_a_false_claim_are_invalid(
    honest: Honest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = tmp_path / "claim.json"
    claim.write_text(json.dumps({"bpb": float(str(honest.score["bpb"])) - 0.05}))
    tokenizer = ByteTokenizer()
    train = [np.append([tokenizer.bos_id], tokenizer.encode_ids(text)) for text in ("another", honest.documents[0])]
    write_shard(tmp_path / "a_train_000000.bin", np.concatenate(train).astype(np.uint16))
    files = ("--tokenizer", honest.tokenizer, "--text", honest.text, "--claim", claim, "--train", tmp_path)
    code = verb.run(arguments(honest.artifact, *files))
    captured = capsys.readouterr()
    assert code == 1
    assert "INVALID" in captured.out
    assert "1 of 7 held-out documents" in captured.out
    assert f"--train {tmp_path}" in captured.out
    assert "score.claim" in captured.out
    assert "verify: score" in captured.err
    assert "verify: score" not in captured.out


def test_mistakes_on_the_command_line_are_named(honest: Honest, run_folder: Path) -> None:
    with pytest.raises(ConfigError, match="--tokenizer and --text"):
        verb.run(arguments(honest.artifact))
    with pytest.raises(ConfigError, match="leave out --text"):
        verb.run(arguments(run_folder, "--text", honest.text))
    with pytest.raises(DataError, match="--data"):
        verb.run(arguments(run_folder))
