"""How a check of a folder says what it found: a result that counts towards the verdict, or a note that does not."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from underpar.referee.rules import Mark, Rule
from underpar.referee.verdict import CheckResult


@dataclass(frozen=True)
class Check:
    """One question to a record folder. `vclass` is the class of invalidity that its failure belongs to."""

    id: str
    title: str
    rule: Rule
    vclass: str

    def passed(self, statement: str, **evidence: Any) -> CheckResult:
        return self._result(True, statement, evidence)

    def failed(
        self,
        statement: str,
        *,
        see: str = "",
        mark: Mark | None = None,
        rule: Rule | None = None,
        vclass: str = "",
        **evidence: Any,
    ) -> CheckResult:
        """`see` is a command that shows the place; `mark` and `rule` replace the check's own."""
        found = self._result(False, statement, {**({"see": see} if see else {}), **evidence}, rule=rule, mark=mark)
        return replace(found, classes=(vclass or self.vclass,))

    def lacks(self, missing: str, statement: str = "", **evidence: Any) -> CheckResult:
        """Something that the verdict needs is not there."""
        return self._result(None, statement or f"not checked: {missing}", evidence, missing=missing)

    def skipped(self, why: str, **evidence: Any) -> CheckResult:
        """Not asked of this folder; the verdict does not need it."""
        return self._result(None, why, evidence)

    def _result(
        self,
        passed: bool | None,
        statement: str,
        evidence: dict[str, Any],
        *,
        rule: Rule | None = None,
        mark: Mark | None = None,
        missing: str | None = None,
    ) -> CheckResult:
        used = rule or self.rule
        return CheckResult(
            self.id, self.title, used.id, mark or used.mark, passed, statement, evidence=evidence, missing=missing
        )


@dataclass(frozen=True)
class Note:
    """Something a reviewer wants to know that proves nothing: a suspicion with its place, or a fact about the figures."""

    id: str
    statement: str
    vclass: str = ""
    file: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def is_suspicion(self) -> bool:
        return bool(self.vclass) and self.id.startswith("scan.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Found = CheckResult | Note


def class_of(check: CheckResult) -> str:
    """The class of invalidity that a failed check belongs to, '' for one that did not fail."""
    return next(iter(check.classes), "")


def show_line(root: str, where: str) -> str:
    """A command that prints the line of 'file:line' below a folder."""
    file, _, line = where.rpartition(":")
    if not file or not line.isdigit():
        return ""
    return f"sed -n {line}p {shlex.quote(f'{root}/{file}')}"


def listed(parts: Sequence[str], at_most: int = 3, glue: str = "; ") -> str:
    """A few of many, and how many more there are."""
    more = f"{glue}and {len(parts) - at_most} more" if len(parts) > at_most else ""
    return glue.join(parts[:at_most]) + more
