"""Which tokenizer a recipe uses, and loading one from disk.

Bytes()                          byte260       one id per byte
SentencePiece(vocab_size=1024)   sp1024        BPE trained on the recipe's own text; recovers every text exactly
CaseOps(vocab_size=8192)         caseops8192   the same over CaseOps text
Gpt2()                           gpt2          the byte-level BPE of GPT-2, which ships with the package
PublishedModel(file="fineweb_8192_bpe", ...)   a model made elsewhere, known by its hash
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from underpar.core.config import Config, PositiveInt, Range, config
from underpar.core.errors import ConfigError, DataError, suggest
from underpar.data.caseops import MARKERS, encode_caseops
from underpar.data.gpt2 import Gpt2Tokenizer
from underpar.data.sentencepiece_models import CaseOpsTokenizer, SentencePieceTokenizer, sentencepiece_tokenizer
from underpar.data.sentencepiece_train import SMALLEST_VOCAB_SIZE, train_bpe
from underpar.data.tokenizer_base import IDENTITY_FILE, MAX_VOCAB_SIZE, MODEL_FILE, ByteTokenizer, Tokenizer

__all__ = [
    "ByteTokenizer",
    "Bytes",
    "CaseOps",
    "CaseOpsTokenizer",
    "Gpt2",
    "Gpt2Tokenizer",
    "PublishedModel",
    "SentencePiece",
    "SentencePieceTokenizer",
    "Tokenizer",
    "TokenizerConfig",
    "load_tokenizer",
    "parse_tokenizer",
]

VocabSize = Annotated[int, Range(at_least=SMALLEST_VOCAB_SIZE, at_most=MAX_VOCAB_SIZE)]
TRAIN_BYTES = 50_000_000
"""Text that a BPE is trained on unless the recipe says otherwise: about 8 s on one core for 8,192 pieces."""


class TokenizerConfig(Config):
    """Base of the tokenizer choices."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Short name, used in folder names: 'byte260', 'sp1024', 'caseops8192'."""
        raise NotImplementedError

    def build(self, documents: Iterable[str] = (), *, models: Path | None = None) -> Tokenizer:
        """The tokenizer: trained on `documents` where it is one that is trained, else read from the folder `models`.

        Raises DataError when the text is too little for the vocabulary, or the published file is absent or another.
        """
        raise NotImplementedError


@config
class Bytes(TokenizerConfig):
    """One id per byte of UTF-8."""

    @property
    def vocab_size(self) -> int:
        return ByteTokenizer.vocab_size

    @property
    def name(self) -> str:
        return ByteTokenizer.name

    def build(self, documents: Iterable[str] = (), *, models: Path | None = None) -> Tokenizer:
        return ByteTokenizer()


@config
class Gpt2(TokenizerConfig):
    """The byte-level BPE of GPT-2. Models of it pad its 50,257 ids to 50,304, a multiple of 128."""

    @property
    def vocab_size(self) -> int:
        return Gpt2Tokenizer.vocab_size

    @property
    def name(self) -> str:
        return Gpt2Tokenizer.name

    def build(self, documents: Iterable[str] = (), *, models: Path | None = None) -> Tokenizer:
        return Gpt2Tokenizer()


@config
class SentencePiece(TokenizerConfig):
    """BPE with byte fallback and identity normalisation, trained on the training documents."""

    vocab_size: VocabSize = 1024
    """Pieces, with 4 special and 256 byte pieces. The game uses 1024 to 8192."""
    train_bytes: PositiveInt = TRAIN_BYTES
    """Whole training documents are read until this many bytes of text."""

    @property
    def name(self) -> str:
        return f"sp{self.vocab_size}"

    def build(self, documents: Iterable[str] = (), *, models: Path | None = None) -> Tokenizer:
        return SentencePieceTokenizer(train_bpe(documents, vocab_size=self.vocab_size, train_bytes=self.train_bytes))


@config
class CaseOps(TokenizerConfig):
    """`SentencePiece` over text whose capitals are written as markers (ids 4 to 7)."""

    vocab_size: VocabSize = 8192
    """Pieces, with 4 special, 4 marker and 256 byte pieces."""
    train_bytes: PositiveInt = TRAIN_BYTES
    """Whole training documents are read until this many bytes of marked text."""

    @property
    def name(self) -> str:
        return f"caseops{self.vocab_size}"

    def build(self, documents: Iterable[str] = (), *, models: Path | None = None) -> Tokenizer:
        marked = (encode_caseops(document) for document in documents)
        model = train_bpe(marked, vocab_size=self.vocab_size, train_bytes=self.train_bytes, markers=MARKERS)
        return CaseOpsTokenizer(model)


@config
class PublishedModel(TokenizerConfig):
    """A SentencePiece model made elsewhere, plain or over CaseOps text. Its scores are lossy where it normalises."""

    file: str
    """File name without folder and '.model', such as 'fineweb_8192_bpe'. Where it lies is no part of a recipe."""
    sha256: str
    """Hash of the file: 64 hex digits."""
    vocab_size: PositiveInt = 8192
    """Number of pieces in the file."""

    @property
    def name(self) -> str:
        return self.file

    def check(self) -> None:
        if "/" in self.file or "\\" in self.file or self.file.endswith(".model"):
            raise ConfigError(f"file = '{self.file}': expected a bare name without folder and without '.model'")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ConfigError(f"sha256 = '{self.sha256}': expected 64 lower-case hex digits, as sha256sum prints them")

    def build(self, documents: Iterable[str] = (), *, models: Path | None = None) -> Tokenizer:
        if models is None:
            raise DataError(
                f"tokenizer '{self.file}' is published, not trained; say which folder holds {self.file}.model"
            )
        path = Path(models) / f"{self.file}.model"
        model = _read(path)
        found = hashlib.sha256(model).hexdigest()
        if found != self.sha256:
            raise DataError(f"{path} has sha256 {found}, the recipe names {self.sha256}; fetch the published file")
        tokenizer = sentencepiece_tokenizer(model)
        if tokenizer.vocab_size != self.vocab_size:
            raise DataError(f"{path} has {tokenizer.vocab_size:,} pieces, the recipe says vocab_size={self.vocab_size}")
        return tokenizer


_TRAINED: dict[str, type[SentencePiece] | type[CaseOps]] = {"sp": SentencePiece, "caseops": CaseOps}


def parse_tokenizer(name: str) -> TokenizerConfig:
    """The choice that a short name stands for: 'byte260', 'sp1024', 'caseops8192'. Raises ConfigError on another."""
    if name == ByteTokenizer.name:
        return Bytes()
    if name == Gpt2Tokenizer.name:
        return Gpt2()
    family = name.rstrip("0123456789")
    digits = name[len(family) :]
    if family in _TRAINED and digits:
        return _TRAINED[family](vocab_size=int(digits)).frozen()
    raise ConfigError(f"unknown tokenizer '{name}'; {suggest(name, ('byte260', 'gpt2', 'sp1024', 'caseops8192'))}")


# ------------------------------------------------------------------------------------------------- from disk


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into a folder, or that a SentencePiece `.model` file holds.

    Raises DataError when it is missing, damaged, or not the one that the folder's identity names.
    """
    path = Path(path)
    if not path.is_dir():
        return sentencepiece_tokenizer(_read(path))
    identity = _read_identity(path / IDENTITY_FILE)
    model = _read(path / MODEL_FILE)
    tokenizer = _rebuilt(identity.get("kind"), model)
    found = hashlib.sha256(model).hexdigest()
    if found != identity.get("sha256") or tokenizer.identity != identity:
        raise DataError(
            f"{path / MODEL_FILE} (sha256 {found}) is not the tokenizer that {IDENTITY_FILE} names "
            f"(sha256 {identity.get('sha256')}); prepare the data again"
        )
    return tokenizer


def _rebuilt(kind: object, model: bytes) -> Tokenizer:
    if kind == ByteTokenizer.kind:
        return ByteTokenizer()
    return Gpt2Tokenizer(model) if kind == Gpt2Tokenizer.kind else sentencepiece_tokenizer(model)


def _read_identity(path: Path) -> dict[str, Any]:
    try:
        identity = json.loads(_read(path))
    except ValueError as problem:
        raise DataError(f"{path} is not JSON: {problem}; prepare the data again") from None
    if not isinstance(identity, dict):
        raise DataError(f"{path} holds no tokenizer identity; prepare the data again")
    return identity


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no {path}; give a folder of prepared data or a SentencePiece .model file") from None
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem.strerror}") from None
