"""Sizes of an artifact of ours and of the code that is counted with it."""

from __future__ import annotations

from typing import Any

from underpar.referee import rules
from underpar.referee.case import Case, Kind, NotMeasured
from underpar.referee.checks.registry import (
    Finding,
    check,
    compare_exactly,
)


@check("size.budget", "artifact within its byte budget, code included", rules.SIZE, Kind.ARTIFACT)
def size_budget(case: Case) -> Finding:
    if case.code is None:
        raise NotMeasured(f"the counted code: {case.code_problem}", needed=True)
    total, limit = case.container_bytes + case.code.code_bytes, case.limit
    room = f"{limit.bytes - total:,} to spare" if total <= limit.bytes else f"{total - limit.bytes:,} over"
    origin = "as shipped" if case.code.shipped else "packed from this installation, none was shipped"
    statement = (
        f"container {case.container_bytes:,} + code {case.code.code_bytes:,} ({origin}) = {total:,} B, limit "
        f"{limit.bytes:,} of {limit.source} ({room}); the tokenizer comes with the data and is not counted"
    )
    evidence = {
        "container_bytes": case.container_bytes,
        "code_bytes": case.code.code_bytes,
        "total_bytes": total,
        "limit_bytes": limit.bytes,
        "limit_source": limit.source,
    }
    return Finding(total <= limit.bytes, statement, evidence)


@check("size.claim", "sizes are the claimed ones", rules.SIZE, Kind.ARTIFACT)
def size_claim(case: Case) -> Finding:
    measured: dict[str, Any] = {"container_bytes": case.container_bytes}
    if case.code is not None and case.code.shipped:
        measured["code_bytes"] = case.code.code_bytes
        measured["artifact_bytes"] = case.container_bytes + case.code.code_bytes
    return compare_exactly(case, measured, "sizes")


@check("size.file", "the judged file is the one that was packed and scored", rules.REPRODUCIBLE, Kind.ARTIFACT)
def size_file(case: Case) -> Finding:
    measured = {"artifact_sha256": case.artifact_sha256, "packed_sha256": case.artifact_sha256}
    return compare_exactly(case, measured, "file hashes")


@check("code.complete", "the counted code holds everything that loading and scoring imports", rules.SIZE, Kind.ARTIFACT)
def code_complete(case: Case) -> Finding:
    code = case.code
    if code is None:
        return Finding(False, f"the counted code is unreadable: {case.code_problem}", {"problem": case.code_problem})
    if not code.shipped:
        raise NotMeasured("no code archive was handed in", needed=False)
    same = "byte for byte what scored it here" if code.same_as_installed else (
        f"another version than what scored it here (that one packs to {code.own_code_bytes:,} B)"
    )  # fmt: skip
    statement = f"{code.modules} modules reached from the entries, none missing; {same}"
    if code.missing:
        statement = f"{len(code.missing)} imported modules are not in the archive, the first is {code.missing[0]}"
    return Finding(not code.missing, statement, code.to_json())
