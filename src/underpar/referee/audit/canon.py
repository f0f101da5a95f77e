"""What is known of the fixed validation text of the 16 MB game: its bytes, and its tokens under each published tokenizer.

    tokens x loss / (ln 2 x bpb) = bytes of the text

holds for every valid log, whatever the tokenizer. The counts are those of merged records (rows of the last batch are
dropped by most scorers, hence several per tokenizer).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TEXT_BYTES = 151_080_000
"""UTF-8 bytes of the 50,000 validation documents, to four digits."""
BAND_BYTES = 60_000
"""Merged logs lie between 151,024,099 and 151,084,310: scorers drop different tails."""
OTHER_EXPORT = 0.003
"""Exports with a tokenizer of one's own were seen to differ by up to 0.26 %."""
DOCUMENTS = 50_000
SPEEDRUN_TOKENS = 10_485_760
"""Validation tokens of the speedrun: fixed, of GPT-2's vocabulary."""


@dataclass(frozen=True)
class Canonical:
    """One published tokenizer: bytes per token, and every token count seen in a valid log."""

    name: str
    bytes_per_token: float
    tokens: tuple[int, ...]
    text_bytes: int = TEXT_BYTES


TOKENIZERS: tuple[Canonical, ...] = (
    Canonical("bytes", 1.0, (151_130_112, 151_076_864)),
    Canonical("sp1024", 2.4359, (62_021_632, 62_013_440, 61_997_056)),
    Canonical("sp2048 (PR #122's export)", 2.9613, (50_905_088,), 150_746_000),
    Canonical("sp4096", 3.3195, (45_508_608, 45_514_752)),
    Canonical("sp8192", 3.7266, (40_540_160, 40_538_112, 40_541_184)),
    Canonical("sp8192 case-split", 3.1572, (47_851_520, 47_853_343)),
    Canonical("sp1024 (first export, the first baseline only)", 2.4424, (63_779_840,), 155_770_000),
)
_TAIL = 40_000
"""Tokens that a scorer may drop at the end of the stream: a long row, or the rows of a last batch."""


def tokenizer_of(tokens: int) -> Canonical | None:
    """The published tokenizer whose validation stream has that many tokens, up to a dropped tail."""
    for entry in TOKENIZERS:
        if any(known - _TAIL <= tokens <= known + 4096 for known in entry.tokens):
            return entry
    return None


def tokenizer_with(bytes_per_token: float) -> Canonical | None:
    """The published tokenizer with that many bytes per token, within 0.15 %."""
    near = [t for t in TOKENIZERS if abs(bytes_per_token / t.bytes_per_token - 1) < 0.0015]
    return near[0] if near else None


def implied_bytes(tokens: float, loss_nats: float, bpb: float) -> float:
    """Bytes of text that a loss per token and bits per byte stand for."""
    return tokens * loss_nats / (math.log(2.0) * bpb)
