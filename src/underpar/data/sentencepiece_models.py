"""SentencePiece tokenizers, plain and over CaseOps text.

Two ways to count bytes. A model that recovers every text has a fixed byte string per id, and counting is a table look-up.
A model that normalises (the published ones use nmt_nfkc) does not: there, each token stands for the original characters
between the end of its predecessor and its own end, which the library reports as offsets.

One character needs help in recoverable models: SentencePiece writes a space as U+2581, so that a U+2581 of the text itself
would come back as a space. It is encoded as its three byte pieces, which decode to themselves.

Source: piece surfaces and offsets as in parameter-golf PR #1729; byte-fallback pieces count one byte each.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import sentencepiece

from underpar.core.errors import DataError
from underpar.data.caseops import ESC, MARKERS, decode_caseops, encode_caseops, original_bytes, utf8_lengths
from underpar.data.sentencepiece_proto import read_normalization
from underpar.data.tokenizer_base import MAX_VOCAB_SIZE, Tokenizer, join_tokens, utf8

SPACE = "\u2581"
"""How SentencePiece writes a space inside pieces."""

_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")

Processor = Any
"""`sentencepiece.SentencePieceProcessor`, whose typed interface differs between the supported versions."""


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model over the text as it is."""

    kind = "sentencepiece"
    _prefix = "sp"

    def __init__(self, model: bytes) -> None:
        """Raises DataError when `model` is not a SentencePiece model with a BOS, a space piece and at most 65,536 pieces."""
        self._model = model
        self._processor = _load(model)
        self._rule = read_normalization(model)
        self.vocab_size = self._processor.vocab_size()
        self.name = f"{self._prefix}{self.vocab_size}"
        self.bos_id = self._processor.bos_id()
        self.normalization = self._rule.name
        self._check()
        self._escaped_space = self._byte_pieces(SPACE.encode())
        self.lossless = self._rule.recoverable and self._escaped_space is not None
        self._byte_table = np.array([len(piece) for piece in self.token_bytes], dtype=np.int64)

    def _check(self) -> None:
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise DataError(
                f"the model has {self.vocab_size:,} pieces; shards hold uint16 ids, at most {MAX_VOCAB_SIZE:,}"
            )
        if self.bos_id < 0:
            raise DataError("the model has no BOS piece, which must begin every document; train it with bos_id=1")
        if self._processor.piece_to_id(SPACE) == self._processor.unk_id():
            raise DataError(
                "the model has no piece for a single space, so that spaces would count as 3 bytes each; "
                "train it on text that has spaces"
            )

    def _byte_pieces(self, data: bytes) -> np.ndarray | None:
        ids = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in data]
        return np.array(ids, dtype=np.uint16) if all(self._processor.is_byte(i) for i in ids) else None

    # ------------------------------------------------------------------------------------------- text -> ids

    def encode_ids(self, text: str) -> np.ndarray:
        return self._ids_of(self._written(text))

    def _encode_counted(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        if self.lossless:
            ids = self.encode_ids(text)
            return ids, self._counts_by_table(ids)
        written, ids, ends = self.spans(text)
        return ids, self._counts_by_offsets(written, ends)

    def _written(self, text: str) -> str:
        """The text as the model sees it."""
        return text

    def _ids_of(self, written: str) -> np.ndarray:
        if not self.lossless or SPACE not in written:
            return self._run(written)
        parts: list[np.ndarray] = []
        for index, part in enumerate(written.split(SPACE)):
            if index:
                assert self._escaped_space is not None, "a lossless model has byte pieces"
                parts.append(self._escaped_space)
            parts.append(self._run(part))
        return np.concatenate(parts)

    def _run(self, written: str) -> np.ndarray:
        if not written.isascii():
            utf8(written)  # SentencePiece replaces a lone surrogate without a word; this raises
        if hasattr(self._processor, "EncodeAsNumpy"):  # from 0.2.3
            return self._processor.encode(written, return_type="numpy").astype(np.uint16)
        return np.array(self._processor.encode(written, out_type=int), dtype=np.uint16)

    def _counts_by_table(self, ids: np.ndarray) -> np.ndarray:
        return self._byte_table[ids]

    def _counts_by_offsets(self, written: str, ends: np.ndarray) -> np.ndarray:
        """Bytes between the ends of consecutive tokens."""
        if not len(ends):
            return np.zeros(0, dtype=np.int64)
        upto = np.concatenate([[0], np.cumsum(self._char_bytes(written), dtype=np.int64)])
        counts = np.diff(upto[ends], prepend=0)
        if counts.min() < 0:
            raise DataError(f"{self.name}: the library's offsets run backwards at token {int(np.argmin(counts)):,}")
        return counts

    def _ids_and_ends(self, written: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids, and the end of each in characters of the written text."""
        if hasattr(self._processor, "EncodeAsOffsetMapping"):  # from 0.2.3, where the older call is gone
            found = self._processor.encode(written, return_type="offset_mapping")
            ids, ends = found["ids"], [end for _, end in found["offsets"]]
        else:
            pieces = self._processor.encode(written, out_type="immutable_proto").pieces
            ids, ends = [piece.id for piece in pieces], [piece.end for piece in pieces]
        return np.array(ids, dtype=np.uint16), np.array(ends, dtype=np.int64)

    def spans(self, text: str) -> tuple[str, np.ndarray, np.ndarray]:
        """The text as the model sees it, its ids, and where each ends in it: str, uint16 (tokens,), int64 (tokens,) characters.

        What the model drops at the end of the text goes to the last token. Raises DataError on lone surrogates.
        """
        written = self._written(text)
        utf8(written)
        ids, ends = self._ids_and_ends(written)
        if len(ends):
            ends[-1] = len(written)
        return written, ids, ends

    def _char_bytes(self, written: str) -> np.ndarray:
        """Original bytes of every character of the written text."""
        return utf8_lengths(written)

    # ------------------------------------------------------------------------------------------- ids -> text

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return join_tokens(self, ids)

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        return tuple(self._bytes_of(i) for i in range(self.vocab_size))

    def _bytes_of(self, token: int) -> bytes:
        if self.is_special(token):
            return b""
        piece = self.piece(token)
        if not self.is_byte(token):
            return piece.replace(SPACE, " ").encode()
        if not _BYTE_PIECE.fullmatch(piece):
            raise DataError(
                f"the SentencePiece model is damaged: byte piece {token} is written {piece!r}, not as <0x41>"
            )
        return bytes([int(piece[3:5], 16)])

    def piece(self, token: int) -> str:
        """The piece as the model writes it: '▁the', '<0x0A>', '<s>'."""
        try:
            return self._processor.id_to_piece(int(token))
        except UnicodeDecodeError:
            raise DataError(f"the SentencePiece model is damaged: piece {token} is not UTF-8") from None

    def is_byte(self, token: int) -> bool:
        """Whether the piece is a byte-fallback piece, one byte each."""
        return self._processor.is_byte(int(token))

    def is_special(self, token: int) -> bool:
        """Whether the piece stands for no text: control, unknown or unused."""
        model = self._processor
        return model.is_control(token) or model.is_unknown(token) or model.is_unused(token)

    def model_bytes(self) -> bytes:
        return self._model


class CaseOpsTokenizer(SentencePieceTokenizer):
    """A SentencePiece model over CaseOps text, whose vocabulary holds the four markers as pieces of their own."""

    kind = "caseops"
    _prefix = "caseops"

    def __init__(self, model: bytes) -> None:
        super().__init__(model)
        if not self.has_markers(self._processor):
            raise DataError(
                "the model has no pieces for the four CaseOps markers U+E001 to U+E004; load it as SentencePiece"
            )
        self._marker_ids = np.array([self._processor.piece_to_id(marker) for marker in MARKERS])
        self._escape_id = int(self._processor.piece_to_id(ESC))
        self._byte_table[self._marker_ids] = 0

    @staticmethod
    def has_markers(processor: Processor) -> bool:
        """Whether a model is over CaseOps text."""
        return all(processor.piece_to_id(marker) != processor.unk_id() for marker in MARKERS)

    def _written(self, text: str) -> str:
        return encode_caseops(text)

    def _counts_by_table(self, ids: np.ndarray) -> np.ndarray:
        """Markers count nothing, an escaped marker its own three bytes."""
        counts = self._byte_table[ids]
        literal = -1
        for position in np.flatnonzero(ids == self._escape_id).tolist():
            if position != literal and position + 1 < len(ids):
                literal = position + 1
                counts[literal] = len(self.token_bytes[ids[literal]])
        return counts

    def _char_bytes(self, written: str) -> np.ndarray:
        return original_bytes(written)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return decode_caseops(join_tokens(self, ids))


def sentencepiece_tokenizer(model: bytes) -> SentencePieceTokenizer:
    """The tokenizer of a serialized model; over CaseOps when its vocabulary has the markers."""
    return CaseOpsTokenizer(model) if CaseOpsTokenizer.has_markers(_load(model)) else SentencePieceTokenizer(model)


def _load(model: bytes) -> Processor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except Exception as problem:  # the library's own types vary between its versions; every one means the same
        raise DataError(f"not a SentencePiece model ({len(model):,} bytes): {problem}") from None
    if processor.vocab_size() == 0:
        raise DataError(f"the SentencePiece model ({len(model):,} bytes) has no pieces")
    return processor
