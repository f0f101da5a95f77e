"""Token shards and a launcher of processes, once for all training tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from train_jobs import Launcher

from support import document_tokens, write_train_shards


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    tokens = document_tokens(6_000)
    write_train_shards(folder, tokens[:2_500], tokens[2_500:])
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
