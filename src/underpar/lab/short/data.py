"""Prepared tokens for a script, which takes a folder as `underpar data` left it."""

import json
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from underpar.core.config import Config, config
from underpar.data.validation import ValStream


class Tokenizer(NamedTuple):
    """What a script asks of a tokenizer."""

    identity: dict[str, Any]
    bos_id: int


def load_tokenizer(folder: Path) -> Tokenizer:
    """As the manifest of prepared tokens describes it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return Tokenizer(manifest["tokenizer"], manifest["bos_id"])


def check_data(*_: object) -> None:
    """Nothing: tokens of another recipe make another score, and no wrong one."""


def shard_files(folder: Path, split: str) -> list[Path]:
    """Shards in reading order."""
    return sorted(folder.glob(f"*_{split}_[0-9]*.bin"))


def open_shard(path: Path) -> np.ndarray:
    """Memory-mapped token ids."""
    return np.memmap(path, "<u2", "r", 1024)


def load_validation(folder: Path) -> ValStream:
    """As `data.validation.load_validation`."""
    tokens = np.concatenate([open_shard(path) for path in shard_files(folder, "val")])
    sidecars = [open_shard(path) for path in shard_files(folder, "val_bytes")]
    counts = np.concatenate(sidecars) if sidecars else _counted(folder, tokens)
    starts = np.flatnonzero(tokens == load_tokenizer(folder).bos_id)
    return ValStream(tokens, counts.astype(np.int32), starts)


def _counted(folder: Path, tokens: np.ndarray) -> np.ndarray:
    """Bytes by the table of a SentencePiece model, as `data.bytecount` counts them."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ids = range(model.vocab_size())
    special = np.array([model.is_control(i) or model.is_unknown(i) or model.is_unused(i) for i in ids])
    pieces = ["x" if model.is_byte(i) else model.id_to_piece(i) for i in ids]
    spaced = np.array([piece[0] == "\u2581" for piece in pieces])
    sizes = np.array([len(piece.replace("\u2581", " ").encode()) for piece in pieces]) - spaced
    before = np.concatenate([tokens[:1], tokens[:-1]])
    return np.where(special[tokens], 0, sizes[tokens] + (spaced[tokens] & ~special[before]))


class TokenizerConfig(Config):
    """Which tokenizer the tokens are of: in a script a part of what the recipe is known by."""


@config
class Bytes(TokenizerConfig):
    """As in `data.tokenizers`, and so those below."""

    vocab_size: ClassVar[int] = 260


@config
class Gpt2(TokenizerConfig):
    """The byte-level BPE of GPT-2."""

    vocab_size: ClassVar[int] = 50_257


@config
class SentencePiece(TokenizerConfig):
    """A BPE of the text itself."""

    vocab_size: int
    train_bytes: int


@config
class CaseOps(TokenizerConfig):
    """The same over CaseOps text."""

    vocab_size: int
    train_bytes: int


@config
class PublishedModel(TokenizerConfig):
    """A model made elsewhere."""

    file: str
    sha256: str
    vocab_size: int
