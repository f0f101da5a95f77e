"""Units, once. Bytes are decimal, losses are nats, scores are bits."""

import math

GOLF_ARTIFACT_BYTES = 16_000_000
"""The cap of the 16 MB game: compressed weights plus code (decimal, not MiB)."""

BITS_PER_NAT = 1.0 / math.log(2.0)


def bits_per_byte(loss_nats: float, tokens: int, text_bytes: int) -> float:
    """Mean loss in nats per token over `tokens` tokens that stand for `text_bytes` bytes, as bits per byte."""
    return loss_nats * tokens * BITS_PER_NAT / text_bytes


def format_bytes(count: int) -> str:
    """'16,000,000 B (16.00 MB)': exact first, readable second."""
    return f"{count:,} B ({format_size(count)})" if count >= 10_000 else f"{count:,} B"


def format_size(count: int) -> str:
    """'16.00 MB', '60.40 GB'."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def format_seconds(seconds: float) -> str:
    """'42.1 s', '3 min 05 s', '2 h 07 min'."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 90:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_count(count: float) -> str:
    """'17.1 M', '2.40 M', '524,288': three significant digits above a million."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return f"{count:,.0f}"
