"""A few documents, one id a byte, and a way to run a script where underpar cannot be imported."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from underpar.data.corpora import Document
from underpar.data.prepare import FirstDocuments, prepare
from underpar.data.tokenizer_base import ByteTokenizer


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("bytes")
    texts = [f"Document {i}. " + "The quick brown fox jumps over the lazy dog. " * (1 + i % 5) for i in range(60)]
    lines = [Document(text, id=str(i)).to_json() + "\n" for i, text in enumerate(texts)]
    (home / "documents.jsonl").write_text("".join(lines), "utf-8")
    prepare([home / "documents.jsonl"], ByteTokenizer(), home / "tokens", val=FirstDocuments(2), workers=1)
    return home / "tokens"


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A folder that holds nothing, and no way to underpar."""
    folder = tmp_path / "alone"
    (folder / "blocked").mkdir(parents=True)
    (folder / "blocked" / "underpar.py").write_text("raise ImportError('there is no underpar here')\n")
    return folder


@pytest.fixture
def python(alone: Path) -> Callable[..., str]:
    """What `python COMMAND` prints in that folder, in a process for which there is no underpar."""

    def run(*command: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(alone / "blocked"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *command], cwd=alone, env=environment, capture_output=True, text=True, timeout=800
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
