"""Everything that the checks may look at: the claim, the measured files, and the facts from the clean process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from underpar.core.units import GOLF_ARTIFACT_BYTES
from underpar.referee.claim import Claim
from underpar.referee.counted_code import CountedCode


class NotMeasured(Exception):
    """A check asked for a fact that is not there. `needed`: the verdict cannot do without it."""

    def __init__(self, reason: str, *, needed: bool) -> None:
        super().__init__(reason)
        self.needed = needed


@dataclass(frozen=True)
class ByteLimit:
    """The cap of the artifact, and who set it."""

    bytes: int = GOLF_ARTIFACT_BYTES
    source: str = "the 16 MB game"


@dataclass(frozen=True)
class Case:
    """One result under examination."""

    claim: Claim
    limit: ByteLimit
    artifact_sha256: str
    container_bytes: int
    code: CountedCode | None
    """None when the archive could not be examined; `code_problem` says why."""
    facts: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, Mapping[str, str]]
    tolerance: float
    """Relative, of a re-computed score."""
    code_problem: str | None = None
    run_problem: str | None = None
    """Why the clean process gave no result."""

    def fact(self, stage: str) -> Mapping[str, Any]:
        """What a stage measured. Raises NotMeasured with the error that stopped it or a stage before it."""
        if stage in self.facts:
            return self.facts[stage]
        if self.run_problem:
            raise NotMeasured(self.run_problem, needed=True)
        for name in (stage, *self.errors):
            if name in self.errors:
                raise NotMeasured(f"{name}: {self.errors[name]['message']}", needed=True)
        raise NotMeasured(f"no measurement '{stage}'", needed=True)

    def claimed(self, name: str) -> Any:
        """A claimed value. Raises NotMeasured (not needed) where nothing is claimed."""
        value = getattr(self.claim, name)
        if value is None:
            raise NotMeasured(f"no {name} is claimed", needed=False)
        return value
