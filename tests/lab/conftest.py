"""One tiny recipe, taken through every stage once for all tests of this room."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from underpar.cli import main
from underpar.lab.files import RunFolder

TINY = (
    "data.tokenizer=Bytes",
    "model.vocab_size=260",
    "model.num_layers=2",
    "model.model_dim=32",
    "model.attention=Attention(num_heads=2,num_kv_heads=1)",
    "data.loader=SequentialRows(batch_tokens=512,seq_len=64,spans=1)",
    "evaluate.window=Flat(context=128)",
    "budget.train_steps=12",
    "budget.train_seconds=None",
    "train.validate_every_steps=6",
)


class Finished(NamedTuple):
    """A run of two seeds, the folder it was made in, and the JSON it printed."""

    home: Path
    folders: list[RunFolder]
    printed: dict[str, Any]


def overrides(extra: tuple[str, ...] = ()) -> list[str]:
    return [part for text in (*TINY, *extra) for part in ("--set", text)]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    home = tmp_path_factory.mktemp("home")
    before = Path.cwd()
    os.chdir(home)
    try:
        import contextlib
        import io

        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = main(["run", "quickstart", *overrides(), "--seeds", "1", "2", "--json", "--device", "cpu"])
    finally:
        os.chdir(before)
    assert code == 0
    printed = json.loads(out.getvalue())
    return Finished(home, [RunFolder(home / run["run"]) for run in printed["runs"]], printed)
