"""Fixtures for every room."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from launcher import Launcher
from underpar.data.corpora import Document
from underpar.data.prepare import FirstDocuments, prepare
from underpar.data.tokenizer_base import ByteTokenizer

settings.register_profile("untimed", deadline=None)  # how long an example takes depends on who else uses the machine
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def corpus_dir() -> Path:
    """The larger real corpus (val.jsonl.xz and more): UNDERPAR_CORPUS, or shared/corpus beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "corpus"
    folder = Path(os.environ.get("UNDERPAR_CORPUS", default))
    if not (folder / "val.jsonl.xz").is_file():
        pytest.skip(f"no corpus at {folder}; set UNDERPAR_CORPUS to a folder with val.jsonl.xz")
    return folder


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """The server of processes imports the tests' own modules, which are on this process's path and not on its."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([p for p in sys.path if p])
    yield Launcher.make()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session")
def byte_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty short documents, one id a byte, two of them held out."""
    home = tmp_path_factory.mktemp("bytes")
    texts = [f"Document {i}. " + "The quick brown fox jumps over the lazy dog. " * (1 + i % 5) for i in range(60)]
    lines = [Document(text, id=str(i)).to_json() + "\n" for i, text in enumerate(texts)]
    (home / "documents.jsonl").write_text("".join(lines), "utf-8")
    prepare([home / "documents.jsonl"], ByteTokenizer(), home / "tokens", val=FirstDocuments(2), workers=1)
    return home / "tokens"
