"""The prepared tokens of a run: found, and held against what the recipe says of them."""

from pathlib import Path

import numpy as np

from underpar.core.errors import DataError
from underpar.core.recipe import Resolved
from underpar.core.world import World
from underpar.data.manifest import Manifest
from underpar.data.sample import prepare_sample
from underpar.data.shards import open_shard, shard_files
from underpar.data.tokenizers import PublishedModel
from underpar.recipes import Recipe

GLANCE_TOKENS = 100_000
"""Tokens at the start of a shard among which a document start is looked for first; a shard without one is read whole."""


def find_data(resolved: Resolved[Recipe], data: Path | None, world: World) -> Path:
    """The folder of prepared tokens: the one given, or the bundled sample's, made on first use.

    Raises DataError when none is given and the recipe does not use the sample.
    """
    config = resolved.config.data
    if data is None:
        if not config.bundled:
            raise DataError(
                f"recipe '{resolved.name}' needs prepared tokens: --data DIR (make them with 'underpar data prepare' or "
                f"'underpar data fineweb --tokenizer {config.tokenizer.name}')"
            )
        data = Path("data") / f"sample_{config.tokenizer.name}"
        if world.is_main and not data.exists():
            prepare_sample(config.tokenizer, data)
        world.barrier()
    return data


def check_data(resolved: Resolved[Recipe], data: Path) -> None:
    """Raise DataError when the tokens were made by another tokenizer, or have no documents and the recipe packs documents."""
    config, manifest = resolved.config, Manifest.load(data)
    wanted, found = config.data.tokenizer, manifest.tokenizer
    if found["vocab_size"] != wanted.vocab_size:
        raise DataError(
            f"{data} holds tokens of a vocabulary of {found['vocab_size']}, recipe '{resolved.name}' has "
            f"{wanted.vocab_size}; prepare with --tokenizer {wanted.name}"
        )
    fits = found["sha256"] == wanted.sha256 if isinstance(wanted, PublishedModel) else found["name"] == wanted.name
    if not fits:
        raise DataError(
            f"{data} was made by tokenizer {found['name']}, recipe '{resolved.name}' names {wanted}; prepare it with that, "
            "or say what it is with --set data.tokenizer=..."
        )
    if config.data.loader.is_packed:
        _check_document_starts(data, manifest.bos_id)


def _check_document_starts(data: Path, bos_id: int) -> None:
    for path in shard_files(data, "train"):
        shard = open_shard(path)
        if not (np.any(shard[:GLANCE_TOKENS] == bos_id) or np.any(shard == bos_id)):
            raise DataError(
                f"{path} has no BOS (id {bos_id}), so that its documents cannot be told apart and packed; prepare it again "
                "with 'underpar data prepare', or train on rows: --set data.loader=SequentialRows"
            )
