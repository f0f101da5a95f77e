"""What the submitter says of a result, read with suspicion: numbers keep the precision they were printed with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from underpar.core.errors import DataError

MAX_CLAIM_BYTES = 8 << 20


class Printed(float):
    """A float that remembers how finely it was printed: 1.2244 may stand for anything within half of its last digit."""

    half_unit: float

    def __new__(cls, text: str) -> Printed:
        number = super().__new__(cls, text)
        exponent = Decimal(text).as_tuple().exponent
        number.half_unit = 0.5 * 10.0**exponent if isinstance(exponent, int) else 0.0
        return number

    @staticmethod
    def within(value: float, half_unit: float) -> Printed:
        """A number whose last printed digit is known apart from its text."""
        number = float.__new__(Printed, value)
        number.half_unit = half_unit
        return number


def half_unit(value: float) -> float:
    """Half of the last printed digit; 0 for a number that was not read from text."""
    return value.half_unit if isinstance(value, Printed) else 0.0


@dataclass(frozen=True)
class Claim:
    """Claimed numbers; None where nothing is claimed. The names are those of score.json and artifact.json."""

    bits: float | None = None
    bytes: int | None = None
    """UTF-8 bytes of the held-out text: the denominator."""
    tokens: int | None = None
    documents: int | None = None
    bpb: float | None = None
    loss_nats: float | None = None
    artifact_sha256: str | None = None
    """Of the file that was scored."""
    packed_sha256: str | None = None
    """Of the file that was packed."""
    container_bytes: int | None = None
    code_bytes: int | None = None
    artifact_bytes: int | None = None
    """Container plus code."""
    budget_bytes: int | None = None
    eval_seconds: float | None = None
    """What scoring took, by the clock of who claims it."""
    budget_eval_seconds: float | None = None
    """What it was allowed to take."""
    device: str | None = None
    """Where the score was computed: 'cpu' or 'cuda'."""

    @property
    def has_score(self) -> bool:
        """Whether there is any claimed score to compare with."""
        return any(value is not None for value in (self.bits, self.bpb, self.loss_nats))

    @staticmethod
    def of(*parts: Mapping[str, Any]) -> Claim:
        """From parsed JSON objects, later ones adding to earlier ones; unknown keys are ignored.

        Raises DataError when a number is not one, is negative, or when two objects disagree.
        """
        found: dict[str, Any] = {}
        for part in parts:
            for item in fields(Claim):
                value = part.get(item.name)
                if value is None:
                    continue
                _judge(item.name, value, str(item.type))
                if item.name in found and found[item.name] != value:
                    raise DataError(
                        f"the claim gives two values of {item.name}: {found[item.name]} and {value}; keep one"
                    )
                found[item.name] = value
        return Claim(**found)

    def to_json(self) -> dict[str, Any]:
        """What is claimed, without the gaps."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def half_units(self) -> dict[str, float]:
        """How finely the printed numbers were printed."""
        return {name: half_unit(value) for name, value in self.to_json().items() if isinstance(value, Printed)}

    def printed_as(self, half_units: Mapping[str, float]) -> Claim:
        """The same claim, its numbers as finely printed as said."""
        values = self.to_json()
        return Claim(**values | {name: Printed.within(values[name], unit) for name, unit in half_units.items()})


def _judge(name: str, value: Any, kind: str) -> None:
    if "str" in kind:
        if not isinstance(value, str):
            raise DataError(f"claimed {name} = {value!r} is not text; correct the claim file")
        return
    wanted = int if "int" in kind else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted) or not 0 <= value < float("inf"):
        noun = "a whole number" if wanted is int else "a finite number"
        raise DataError(f"claimed {name} = {value!r} is not {noun} of at least 0; correct the claim file")


def read_claim_file(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises DataError when it is absent, too long, not JSON or not an object."""
    return read_json_object(path, MAX_CLAIM_BYTES)


def read_json_object(path: Path, limit: int) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes; its floats remember how they were printed."""
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem.strerror}") from None
    if len(raw) > limit:
        raise DataError(f"{path} is longer than {limit:,} bytes, too long for what it should be; name another file")
    try:
        data = json.loads(raw.decode("utf-8"), parse_float=Printed)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{path} is not JSON: {problem}") from None
    if not isinstance(data, dict):
        raise DataError(f"{path} holds a JSON {type(data).__name__}, expected is an object")
    return data
