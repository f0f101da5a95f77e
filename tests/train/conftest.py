"""Token shards, once for all training tests."""

from pathlib import Path

import pytest

from support import document_tokens, write_train_shards


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    tokens = document_tokens(6_000)
    write_train_shards(folder, tokens[:2_500], tokens[2_500:])
    return folder
