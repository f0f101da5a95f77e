"""What `underpar record` adds to a folder: artifacts with their hashes, counted source, verdicts, the bytes of its text."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from typing import Any

from underpar.core.errors import UnderparError
from underpar.core.units import BITS_PER_NAT
from underpar.referee.audit.files import Item, open_plain
from underpar.referee.audit.outcome import Check, Found, listed
from underpar.referee.audit.record import Record
from underpar.referee.rules import REPRODUCIBLE, SCORE, SIZE
from underpar.referee.verdict import Ruling, Verdict

ARTIFACT = Check(
    "artifact.file", "each packed model is the one that was scored, at the size that is stated", SIZE, "V19"
)
VERDICTS = Check("artifact.verdict", "each run was verified in a clean process", REPRODUCIBLE, "V23")
TEXT = Check("bytes.text", "bpb is bits over the bytes of the verified text", SCORE, "V16")


def check_own(record: Record) -> Iterator[Found]:
    """Nothing for folders that underpar did not write."""
    if not record.made_by_underpar or record.claims is None:
        return
    yield _artifacts(record)
    yield _verdicts(record)
    yield _text(record)


def _artifacts(record: Record) -> Found:
    results = record.claims.raw.get("seed_results") if record.claims else None
    files = {item.name: item for item in record.inventory.items}
    wrong, seen = [], 0
    code = files["code.tar.xz"].size if "code.tar.xz" in files else 0
    for seed, row in results.items() if isinstance(results, dict) else ():
        item = files.get(f"artifact_seed{seed}.upar")
        if item is None or not isinstance(row, dict):
            continue
        seen += 1
        digest = _sha256(item)
        if digest != row.get("artifact_sha256"):
            wrong.append(
                f"{item.name} has sha256 {digest[:16]}..., stated is {str(row.get('artifact_sha256'))[:16]}..."
            )
        if item.size + code != row.get("artifact_bytes"):
            wrong.append(
                f"{item.name} and code.tar.xz have {item.size + code:,} bytes, stated are {row.get('artifact_bytes')}"
            )
    if wrong:
        return ARTIFACT.failed(listed(wrong), see=f"sha256sum {shlex.quote(str(record.root))}/artifact_seed*.upar")
    return (
        ARTIFACT.passed(f"{seen} files have the stated hash and size") if seen else ARTIFACT.lacks("the packed models")
    )


def _sha256(item: Item) -> str:
    digest = hashlib.sha256()
    with os.fdopen(open_plain(item.path), "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _verdicts(record: Record) -> Found:
    words: dict[str, str] = {}
    for name, data in record.own.items():
        if name.startswith("verdict"):
            try:
                words[name] = str(Verdict.from_json(data).ruling)
            except UnderparError as problem:
                words[name] = f"unreadable ({problem})"
    others = {name: word for name, word in words.items() if word != Ruling.VALID}
    if others:
        said = listed([f"{name}: {word}" for name, word in others.items()])
        return VERDICTS.lacks(f"a valid verdict ({said})", said)
    return VERDICTS.passed(f"{len(words)} verdicts say valid, and follow from their checks")


def _text(record: Record) -> Found:
    """Tokens, loss and bpb of each log against the bytes that the referee measured of the text."""
    measured = {name: _facts(data) for name, data in record.own.items() if name.startswith("verdict")}
    wrong, seen = [], 0
    for run in record.runs:
        facts = measured.get(f"verdict_seed{run.seed}.json")
        tokens = run.block.tokens
        if not facts or run.score is None or not run.score.loss or not run.score.bpb or not tokens:
            continue
        seen += 1
        implied = tokens * run.score.loss.value * BITS_PER_NAT / run.score.bpb.value
        slack = 2 * (run.score.loss.relative + run.score.bpb.relative) + 1e-9
        if abs(implied / facts["bytes"] - 1) > slack:
            wrong.append(f"{run.label}: {implied:,.0f} bytes implied, {facts['bytes']:,} were verified")
    if wrong:
        return TEXT.failed(listed(wrong))
    sizes = sorted({facts["bytes"] for facts in measured.values() if facts})
    said = f"{seen} logs imply the {' and '.join(f'{s:,}' for s in sizes)} bytes of their own text"
    return TEXT.passed(said) if seen else TEXT.skipped("no verdict carries a measured score")


def _facts(data: dict[str, Any]) -> dict[str, int] | None:
    score = data.get("measured", {}).get("facts", {}).get("score") if isinstance(data.get("measured"), dict) else None
    size = score.get("bytes") if isinstance(score, dict) else None
    return {"bytes": size} if isinstance(size, int) and size > 0 else None
