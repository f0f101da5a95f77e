"""A number as somebody printed it: its value and the size of its last digit, so that rounding is never an accusation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation


@dataclass(frozen=True)
class Printed:
    """`unit` is the value of the last printed digit, `where` the key or the file and line it stands at."""

    value: float
    unit: float
    where: str = ""

    def __float__(self) -> float:
        return self.value

    def agrees(self, other: float | Printed) -> bool:
        """Whether both can be the same quantity, each rounded or cut off at its last digit."""
        units = sorted((self.unit, other.unit if isinstance(other, Printed) else 0.0))
        slack = units[1] + 0.5 * units[0]
        return abs(self.value - float(other)) <= slack * (1 + 1e-9) + 1e-14 * abs(self.value)

    @property
    def relative(self) -> float:
        """Half the last digit as a share of the value: what rounding can have moved."""
        return 0.5 * self.unit / abs(self.value) if self.value else math.inf

    def __str__(self) -> str:
        if self.unit >= 1:
            return f"{self.value:,.0f}"
        return f"{self.value:.{max(0, min(12, round(-math.log10(self.unit))))}f}"


def printed(text: str | Decimal, where: str = "") -> Printed | None:
    """Read a decimal number; None when it is none, or not finite, or of absurd size."""
    try:
        number = text if isinstance(text, Decimal) else Decimal(text)
    except InvalidOperation:
        return None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or not number.is_finite() or not -40 <= number.adjusted() <= 30:
        return None
    return Printed(float(number), 10.0 ** min(0, max(-40, exponent)), where)
