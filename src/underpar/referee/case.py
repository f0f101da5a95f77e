"""Everything that the checks may look at: claim, measured files, facts. As JSON it is the evidence of a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from underpar.core.errors import DataError
from underpar.core.units import GOLF_ARTIFACT_BYTES
from underpar.referee.claim import Claim
from underpar.referee.counted_code import CountedCode
from underpar.referee.verdict import BUDGET


class NotMeasured(Exception):
    """A check asked for a fact that is not there. `needed`: the verdict cannot do without it."""

    def __init__(self, reason: str, *, needed: bool) -> None:
        super().__init__(reason)
        self.needed = needed


class Kind(StrEnum):
    """What is examined."""

    ARTIFACT = "artifact"
    """A file of ours: data that our own code reads."""
    POSITIONS = "positions"
    """A program that charges every position."""
    AGGREGATE = "aggregate"
    """A program that prints its final loss and nothing else."""


PROGRAMS = (Kind.POSITIONS, Kind.AGGREGATE)
GROUNDWORK = ("reload", "start", "tokenizer", "text", "score")
"""Stages that the others stand on: where one of them failed, nothing that comes later was measured."""

UNNAMED = {
    "text": "no raw text is named (--text)",
    "overlap": "no training shards are named (--train)",
    "unseen": "no other text of the same kind is named (--unseen)",
}
ABILITIES = {
    "replay": ("can_replay", "every question is answered by a process of its own"),
    "warm_up": ("can_warm_up", "it has no warm-up that could be given other tokens"),
    "world": ("can_scale", "it takes no number of processes ({world})"),
    "order": ("has_documents", "the text has not three documents"),
    "isolation": ("has_documents", "the text has not three documents"),
    "flip_whole": ("can_look_ahead", "it gets token by token and cannot look ahead"),
}
"""Probe -> what a predictor must be able to do for it, and what there is to say where it cannot."""


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
    facts: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, Mapping[str, str]]
    tolerance: float
    """Relative, of a re-computed score."""
    kind: Kind = Kind.ARTIFACT
    artifact_sha256: str = ""
    container_bytes: int = 0
    code: CountedCode | None = None
    """None when the archive could not be examined; `code_problem` says why."""
    code_problem: str | None = None
    run_problem: str | None = None
    """Why the clean process gave no result."""
    closure: Mapping[str, Any] = field(default_factory=dict)
    """How far the machine let the process be closed: the fields of a Level, and its statement."""

    def fact(self, stage: str) -> Mapping[str, Any]:
        """What a stage measured. Raises NotMeasured with the error that stopped it or a stage it stands on."""
        if stage in self.facts:
            return self.facts[stage]
        if self.run_problem:
            raise NotMeasured(self.run_problem, needed=True)
        for name in (stage, *GROUNDWORK):
            if name in self.errors:
                raise NotMeasured(f"{name}: {self.errors[name]['message']}", needed=True)
        raise NotMeasured(self._why_absent(stage), needed=False)

    def _why_absent(self, stage: str) -> str:
        """Why nothing failed and yet there is no fact."""
        if stage in UNNAMED:
            return UNNAMED[stage]
        ability, otherwise = ABILITIES.get(stage, ("", ""))
        if ability and not self.facts.get("abilities", {}).get(ability, True):
            return otherwise
        return f"{BUDGET}; give more with --budget" if "plan" in self.facts else "nothing to judge here"

    def claimed(self, name: str) -> Any:
        """A claimed value. Raises NotMeasured (not needed) where nothing is claimed."""
        value = getattr(self.claim, name)
        if value is None:
            raise NotMeasured(f"{name} is not claimed", needed=False)
        return value

    def to_json(self) -> dict[str, Any]:
        """The whole case as plain JSON data: what a verdict is derived from."""
        code = None if self.code is None else self.code.to_json()
        return {
            "kind": str(self.kind),
            "claim": self.claim.to_json(),
            "claim_half_units": self.claim.half_units(),
            "limit": asdict(self.limit),
            "tolerance": self.tolerance,
            "artifact_sha256": self.artifact_sha256,
            "container_bytes": self.container_bytes,
            "code": code,
            "code_problem": self.code_problem,
            "run_problem": self.run_problem,
            "closure": dict(self.closure),
            "facts": dict(self.facts),
            "errors": dict(self.errors),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Case:
        """Raises DataError when a part is absent or of another form."""
        try:
            code = data["code"]
            return Case(
                claim=Claim.of(data["claim"]).printed_as(data["claim_half_units"]),
                limit=ByteLimit(**data["limit"]),
                facts=data["facts"],
                errors=data["errors"],
                tolerance=float(data["tolerance"]),
                kind=Kind(data["kind"]),
                artifact_sha256=data["artifact_sha256"],
                container_bytes=data["container_bytes"],
                code=None if code is None else CountedCode(**(code | {"missing": tuple(code["missing"])})),
                code_problem=data["code_problem"],
                run_problem=data["run_problem"],
                closure=data["closure"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise DataError(f"the evidence is incomplete or damaged ({problem!r}); verify again") from None
