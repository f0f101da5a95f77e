"""Rows that begin with a document: text beyond a maximal length is passed over, so that every token trained on has its context.

The text is walked document by document; where the walk stands is one position in the stream, the start of the next document.
Source: modded-nanogpt, records 26 to 72.
"""

from collections.abc import Iterator

import numpy as np

from underpar.core.config import PositiveInt, config
from underpar.core.errors import DataError, Exhausted
from underpar.data.loaders import DocumentPacking, TokenStream

_SCAN_TOKENS = 1 << 20
"""Tokens that are searched for document starts at a time."""


@config
class AlignedDocuments(DocumentPacking):
    """Each span takes whole documents in order, each cut off after `seq_len` tokens, and the last one where the span is full.

    What is cut off is not trained on. The last token of every document, cut off or not, learns to predict the next one's BOS,
    as in the published loader; unlike there, a document that crosses the end of a shard is not torn.
    """

    batch_tokens: PositiveInt = 131_072
    seq_len: PositiveInt = 2048
    epochs: PositiveInt = 1
    """How often the shards may be gone through; needing more is an error, not a silent repetition."""

    def read(self, stream: TokenStream, position: int, bos_id: int) -> tuple[np.ndarray, int]:
        """As `Loader.read`. Raises Exhausted when the shards are used up, DataError when they hold no document."""
        out = np.empty((self.spans, self.span_tokens + 1), dtype=np.uint16)
        documents = _documents(stream, position, bos_id)
        for row in out:
            filled = 0
            while filled < len(row):
                start, position = next(documents)
                if start >= self.epochs * stream.total_tokens:
                    raise Exhausted(
                        f"the training shards are used up: {stream.total_tokens:,} tokens, gone through {self.epochs} time(s) "
                        f"in documents of at most {self.seq_len:,} tokens; add shards, or raise data.loader.epochs"
                    )
                taken = min(position - start, self.seq_len, len(row) - filled)
                row[filled : filled + taken] = stream.read(start, taken)
                filled += taken
        return out, position


def _documents(stream: TokenStream, position: int, bos_id: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each document from `position` on, absolute, epoch after epoch; a document ends with its epoch."""
    total = stream.total_tokens
    while True:
        epoch_end = (position // total + 1) * total
        start = None
        while position < epoch_end:
            window = stream.read(position, min(_SCAN_TOKENS, epoch_end - position))
            for found in (np.flatnonzero(window == bos_id) + position).tolist():
                if start is not None:
                    yield start, found
                start = found
            position += len(window)
        if start is None:
            raise DataError(
                f"no BOS (id {bos_id}) in the training shards from token {position - total:,} on; prepare them again with "
                "'underpar data prepare'"
            )
        yield start, epoch_end
