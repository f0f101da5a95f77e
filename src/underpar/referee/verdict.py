"""The verdict: what every check found, and the one word that follows from it.

The word is computed from the checks and from nothing else, so a verdict can be derived again from its own file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from underpar.core.errors import ConfigError, DataError, suggest
from underpar.referee.classes import CLASSES, invalidity_class
from underpar.referee.rules import Mark


class Ruling(StrEnum):
    """The word of a verdict."""

    VALID = "valid"
    INVALID = "invalid"
    """A check of an official rule failed."""
    DISPUTED = "disputed"
    """Only checks of contested rules failed."""
    UNVERIFIABLE = "unverifiable"
    """Nothing failed, but something that is needed could not be measured."""


BUDGET = "the budget did not reach it"
"""How a check that would have cost too much says so."""
CORE = ("causality.flip", "normalisation.sweep", "canary.uniform")
"""Without these a valid verdict says little, and the headline tells."""
EXIT_CODES = {Ruling.VALID: 0, Ruling.INVALID: 1, Ruling.DISPUTED: 3, Ruling.UNVERIFIABLE: 4}
"""Exit codes of `underpar verify`; 2 is a mistake of the user's."""


@dataclass(frozen=True)
class CheckResult:
    """What one check found."""

    id: str
    title: str
    rule: str
    mark: Mark
    passed: bool | None
    """None: not checked."""
    statement: str
    """What was measured against what, and what this can and cannot rule out."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """Plain JSON data."""
    missing: str | None = None
    """For a check that could not run although the verdict needs it: what was missing."""
    classes: tuple[str, ...] = ()
    """Classes of invalidity that a failure looks like, the likeliest first."""

    @staticmethod
    def from_json(data: dict[str, Any]) -> CheckResult:
        """Raises DataError on a field that is absent or of the wrong type."""
        try:
            classes = tuple(invalidity_class(id).id for id in data.get("classes", ()))
            found = CheckResult(**(data | {"mark": Mark(data["mark"]), "classes": classes}))
        except (TypeError, KeyError, ValueError, ConfigError) as problem:
            raise DataError(f"not the result of a check: {problem}; verify again to get a fresh verdict") from None
        if found.passed not in (True, False, None):
            raise DataError(f"check {found.id}: passed = {found.passed!r}; valid: true, false, null")
        return found


@dataclass(frozen=True)
class Verdict:
    """The outcome of a verification."""

    checks: tuple[CheckResult, ...]
    measured: dict[str, Any] = field(default_factory=dict)
    """What the clean process measured, as plain JSON data."""
    subject: dict[str, Any] = field(default_factory=dict)
    """Which files were judged (sha256 and bytes of each), and the command that repeats the verdict."""

    @property
    def ruling(self) -> Ruling:
        """Invalid before disputed before unverifiable before valid."""
        if self._failed(Mark.OFFICIAL):
            return Ruling.INVALID
        if self._failed(Mark.COMMUNITY, Mark.DISPUTED):
            return Ruling.DISPUTED
        if not self.checks or any(c.missing for c in self.checks):
            return Ruling.UNVERIFIABLE
        return Ruling.VALID

    @property
    def decisive(self) -> CheckResult | None:
        """The first check that made the ruling what it is; None for a valid result."""
        match self.ruling:
            case Ruling.INVALID:
                return self._failed(Mark.OFFICIAL)[0]
            case Ruling.DISPUTED:
                return self._failed(Mark.COMMUNITY, Mark.DISPUTED)[0]
            case Ruling.UNVERIFIABLE:
                return next((c for c in self.checks if c.missing), None)
            case _:
                return None

    @property
    def reason(self) -> str:
        """The ruling in one line."""
        one = self.decisive
        match self.ruling:
            case Ruling.INVALID if one:
                named = f"{one.classes[0]} {CLASSES[one.classes[0]].title}; " if one.classes else ""
                return f"invalid ({named}{one.rule}, {one.id}): {one.statement}"
            case Ruling.DISPUTED if one:
                return f"disputed ({one.rule}, {one.id}): {one.statement}"
            case Ruling.UNVERIFIABLE:
                return f"unverifiable: {one.missing if one else 'no check was run'}"
            case _:
                open_checks = [c.id for c in self.checks if c.passed is None]
                return "valid" + (f"; not checked: {', '.join(open_checks)}" if open_checks else "")

    @property
    def headline(self) -> str:
        """The word, and the check that decided it."""
        one = self.decisive
        if one is None:
            unreached = [c.id for c in self.checks if c.id in CORE and c.passed is None and BUDGET in c.statement]
            return str(self.ruling) + (f", but the budget did not reach {', '.join(unreached)}" if unreached else "")
        named = "".join(f"; looks like {id} {CLASSES[id].title}" for id in one.classes[:1])
        return f"{self.ruling} ({one.rule}, {one.id}{named})"

    @property
    def readings(self) -> list[dict[str, Any]]:
        """Of a disputed result: the word and the score under either reading of what is contested, as plain JSON data.

        bpb: the measured score; where the contested check says what a reading does to it, that; None where nobody knows.
        """
        if self.ruling is not Ruling.DISPUTED:
            return []
        contested = self._failed(Mark.COMMUNITY, Mark.DISPUTED)
        lenient = Verdict(tuple(c for c in self.checks if c not in contested)).ruling
        score = self.measured.get("facts", {}).get("score", {}).get("bpb")
        priced = [one for check in contested for one in check.evidence.get("readings", ())]
        if len(contested) != 1 or len(priced) != 2:
            priced = [{"reading": "leniently", "bpb": score}, {"reading": "strictly", "bpb": None}]
        names = ", ".join(dict.fromkeys(f"{c.rule} ({c.id})" for c in contested))
        words = (str(lenient), str(Ruling.INVALID))
        return [
            {"contested": names, "reading": one["reading"], "verdict": word, "bpb": one["bpb"]}
            for one, word in zip(priced, words, strict=True)
        ]

    @property
    def is_valid(self) -> bool:
        return self.ruling is Ruling.VALID

    def __str__(self) -> str:
        return self.reason

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.ruling]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `from_json` reads it back and derives the same word."""
        return {
            "verdict": str(self.ruling),
            "reason": self.reason,
            "readings": self.readings,
            "class": next(iter(self.decisive.classes), None) if self.decisive else None,
            "classes": {id: CLASSES[id].title for check in self.checks for id in check.classes},
            "checks": [asdict(c) | {"mark": str(c.mark), "classes": list(c.classes)} for c in self.checks],
            "measured": self.measured,
            "subject": self.subject,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Verdict:
        """Rebuild a verdict from its file. Raises DataError when the written word does not follow from the checks."""
        if "verdict" not in data or "checks" not in data:
            raise DataError("not a verdict: it holds no verdict with its checks; name a verdict.json")
        if data["verdict"] not in set(Ruling):
            raise DataError(f"verdict {data['verdict']!r} is unknown; {suggest(str(data['verdict']), Ruling)}")
        checks = tuple(CheckResult.from_json(item) for item in data["checks"])
        found = Verdict(checks, data.get("measured", {}), data.get("subject", {}))
        if found.ruling != data["verdict"]:
            raise DataError(f"the file says '{data['verdict']}', its checks say '{found.ruling}'; verify again")
        return found

    def _failed(self, *marks: Mark) -> Sequence[CheckResult]:
        return [c for c in self.checks if c.passed is False and c.mark in marks]
