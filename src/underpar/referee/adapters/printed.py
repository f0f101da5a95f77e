"""The final loss that a program prints, in the forms that published scripts use."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from underpar.referee.claim import Printed, half_unit

_NUMBER = r"(-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf|-inf)"
_LOSS = re.compile(rf"\bval_loss\s*[:=]\s*{_NUMBER}", re.IGNORECASE)
_BPB = re.compile(rf"\bval_bpb\s*[:=]\s*{_NUMBER}", re.IGNORECASE)
_TOKENS = re.compile(r"\bval_tokens\s*[:=]\s*(\d+)|\bval_loader:\S*\s.*\btokens:(\d+)|\btokens[:=](\d+)", re.IGNORECASE)
_DIAGNOSTIC = re.compile(r"diagnostic|pre-quantization|pre_quant|train_loss", re.IGNORECASE)


@dataclass(frozen=True)
class PrintedScore:
    """What a program says of a run. None where it does not say it."""

    loss_nats: float | None
    bpb: float | None
    tokens: int | None
    loss_half_unit: float
    """Half of the last printed digit of the loss."""
    bpb_half_unit: float
    line: str
    """The line that the score was read from."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_printed(text: str) -> PrintedScore | None:
    """The last line with `val_loss` that is no diagnostic, with the tokens named anywhere; None without such a line.

    A loss that is printed as nan or inf is None here, and the line tells.
    """
    line = ""
    for candidate in text.splitlines():
        if _LOSS.search(candidate) and not _DIAGNOSTIC.search(candidate):
            line = candidate.strip()
    if not line:
        return None
    loss, bpb = _number(_LOSS, line), _number(_BPB, line)
    counts = [int(next(filter(None, found.groups()))) for found in _TOKENS.finditer(text)]
    return PrintedScore(
        loss_nats=loss,
        bpb=bpb,
        tokens=counts[-1] if counts else None,
        loss_half_unit=0.0 if loss is None else half_unit(loss),
        bpb_half_unit=0.0 if bpb is None else half_unit(bpb),
        line=line[:500],
    )


def _number(pattern: re.Pattern[str], line: str) -> float | None:
    found = pattern.findall(line)
    if not found or not math.isfinite(float(found[-1])):
        return None
    return Printed(found[-1])
