"""The validation stream as a score needs it: tokens, the original bytes that each stands for, and document starts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from underpar.core.errors import DataError
from underpar.data.bytecount import byte_lut, count_target_bytes
from underpar.data.manifest import Manifest, how_to_make
from underpar.data.shards import open_shard, shard_files, sidecar_files
from underpar.data.tokenizer_base import Tokenizer
from underpar.data.tokenizers import load_tokenizer


@dataclass(frozen=True, eq=False)
class ValStream:
    """The whole validation split, in order.

    tokens: uint16 (N,), a BOS before every document. byte_counts: int32 (N,), original UTF-8 bytes of each token, 0 at
    BOS. document_starts: int64 (D,), the positions of the BOS tokens.
    """

    tokens: np.ndarray
    byte_counts: np.ndarray
    document_starts: np.ndarray

    @property
    def text_bytes(self) -> int:
        """Bytes that the stream stands for: the denominator of bits per byte."""
        return int(self.byte_counts.sum(dtype=np.int64))

    def first(self, count: int | None) -> "ValStream":
        """The stream of the first `count` predictions; None is all of it. Raises DataError when there are fewer."""
        if count is None:
            return self
        if count >= len(self.tokens):
            raise DataError(
                f"the validation split has {len(self.tokens) - 1:,} predictable tokens, {count:,} are to be scored; "
                "prepare more text, or lower evaluate.first_tokens"
            )
        starts = self.document_starts[self.document_starts <= count]
        return ValStream(self.tokens[: count + 1], self.byte_counts[: count + 1], starts)


def load_validation(folder: str | Path) -> ValStream:
    """The validation stream of a prepared folder, checked against its manifest.

    Bytes come from the sidecars; a published export without any is counted by the table of its tokenizer.
    Raises DataError when there is no validation split, when the first token is no BOS, when a BOS stands for bytes, or when
    documents or bytes are not the manifest's.
    Cost: 10 bytes of memory per token.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder)
    shards = shard_files(folder, "val")
    if not shards:
        raise DataError(f"{folder} has no validation shards; {how_to_make(folder)}")
    tokens = np.concatenate([open_shard(path) for path in shards])
    is_start = tokens == manifest.bos_id
    if not is_start[0]:
        raise DataError(
            f"{folder} does not begin with BOS (id {manifest.bos_id}) but with id {tokens[0]}; prepare it again"
        )
    counts = stream_byte_counts(folder, tokens, load_tokenizer(folder))
    stream = ValStream(tokens, counts, np.flatnonzero(is_start).astype(np.int64))
    _check(stream, manifest, folder)
    return stream


def stream_byte_counts(folder: Path, tokens: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Original bytes of each validation token, int32 (N,): from the sidecars, or where there are none from the table."""
    sidecars = sidecar_files(folder)
    if sidecars:
        return np.concatenate([open_shard(path) for path in sidecars]).astype(np.int32)
    counts = np.zeros(len(tokens), dtype=np.int32)
    counts[1:] = count_target_bytes(tokens[:-1], tokens[1:], byte_lut(tokenizer))
    return counts


def _check(stream: ValStream, manifest: Manifest, folder: Path) -> None:
    expected = manifest.splits["val"]
    charged = int(stream.byte_counts[stream.document_starts].sum())
    if charged:
        raise DataError(f"{folder} charges {charged:,} bytes to BOS tokens, which stand for none; prepare it again")
    if len(stream.document_starts) != expected.documents:
        raise DataError(
            f"{folder} has {len(stream.document_starts):,} validation documents (BOS tokens), its manifest says "
            f"{expected.documents:,}; prepare it again"
        )
    if expected.text_bytes is not None and stream.text_bytes != expected.text_bytes:
        raise DataError(
            f"the validation tokens of {folder} stand for {stream.text_bytes:,} bytes, its manifest says "
            f"{expected.text_bytes:,}; prepare it again"
        )
