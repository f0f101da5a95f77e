"""The few facts of a SentencePiece model file that its own library does not tell: how the text is normalised.

Read straight from the protocol-buffer bytes, because SentencePiece does not depend on the protobuf package.
Source: `sentencepiece_model.proto` of google/sentencepiece (field numbers).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from underpar.core.errors import DataError

_MODEL_TRAINER, _MODEL_NORMALIZER = 2, 3
_TRAINER_WHITESPACE_AS_SUFFIX, _TRAINER_BYTE_FALLBACK = 24, 35
_NORMALIZER_NAME, _NORMALIZER_CHARSMAP, _NORMALIZER_DUMMY_PREFIX, _NORMALIZER_EXTRA_SPACES, _NORMALIZER_ESCAPE = range(
    1, 6
)

Field = int | bytes


@dataclass(frozen=True)
class Normalization:
    """How a model rewrites text before it splits it."""

    name: str
    """'identity', 'nmt_nfkc', ... as the trainer was told."""
    rewrites_characters: bool
    adds_dummy_prefix: bool
    removes_extra_spaces: bool
    escapes_spaces: bool
    space_as_suffix: bool
    byte_fallback: bool

    @property
    def recoverable(self) -> bool:
        """Whether every text can be recovered from its pieces."""
        changes = (
            self.rewrites_characters or self.adds_dummy_prefix or self.removes_extra_spaces or self.space_as_suffix
        )
        return self.escapes_spaces and self.byte_fallback and not changes


def read_normalization(model: bytes) -> Normalization:
    """The normalisation of a serialized model. Raises DataError when the bytes are not one."""
    parts = _last(model)
    trainer, normalizer = _last(_bytes(parts, _MODEL_TRAINER)), _last(_bytes(parts, _MODEL_NORMALIZER))
    charsmap = _bytes(normalizer, _NORMALIZER_CHARSMAP)
    name = _bytes(normalizer, _NORMALIZER_NAME).decode("utf-8", errors="replace")
    return Normalization(
        name=name or ("custom" if charsmap else "identity"),
        rewrites_characters=bool(charsmap),
        adds_dummy_prefix=bool(normalizer.get(_NORMALIZER_DUMMY_PREFIX, 1)),
        removes_extra_spaces=bool(normalizer.get(_NORMALIZER_EXTRA_SPACES, 1)),
        escapes_spaces=bool(normalizer.get(_NORMALIZER_ESCAPE, 1)),
        space_as_suffix=bool(trainer.get(_TRAINER_WHITESPACE_AS_SUFFIX, 0)),
        byte_fallback=bool(trainer.get(_TRAINER_BYTE_FALLBACK, 0)),
    )


def _bytes(message: dict[int, Field], number: int) -> bytes:
    value = message.get(number, b"")
    if not isinstance(value, bytes):
        raise DataError(f"not a SentencePiece model: field {number} is a number where a message or text belongs")
    return value


def _last(message: bytes) -> dict[int, Field]:
    """Field number -> its last value, as protocol buffers read a field that is not repeated."""
    return dict(_fields(message))


def _fields(message: bytes) -> Iterator[tuple[int, Field]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire, number = key & 7, key >> 3
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise DataError(f"not a SentencePiece model: wire type {wire} at byte {at:,}")
        if at + length > len(message):
            raise DataError(f"not a SentencePiece model: a field of {length:,} bytes at {at:,} passes the end")
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise DataError(f"not a SentencePiece model: a number at byte {at:,} does not end")
