"""The audit of a single script: unpacked, measured, read; never run."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underpar.core.errors import RecordError
from underpar.core.units import GOLF_ARTIFACT_BYTES, format_bytes
from underpar.referee.audit.files import Item, printable, take_inventory
from underpar.referee.audit.outcome import Check, Note
from underpar.referee.audit.render import render_note
from underpar.referee.audit.scan import scan_script
from underpar.referee.audit.scan.siblings import executed_siblings
from underpar.referee.audit.source import Source, read_source
from underpar.referee.render import WIDTH
from underpar.referee.rules import CLOSED, PACKAGE, SIZE
from underpar.referee.verdict import CheckResult, Verdict

READ = Check("script.read", "the script can be read to its innermost layer", PACKAGE, "V23")
SIZED = Check("script.size", "the script and what it runs leave room under the cap", SIZE, "V19")
CLEAR = Check("script.constructs", "nothing in it resembles what invalid results were made with", CLOSED, "V25")


@dataclass(frozen=True)
class ScriptReport:
    """One script. A suspicion makes it unverifiable: only a replay confirms or clears it."""

    path: str
    source: Source
    siblings: tuple[Item, ...]
    notes: tuple[Note, ...]
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        return {
            "script": self.path,
            "bytes": len(self.source.shipped),
            "sha256": self.source.sha256,
            "layers": self.source.layers,
            "unpacked_characters": len(self.source.text),
            "runs": [{"name": item.name, "bytes": item.size} for item in self.siblings],
            **self.verdict.to_json(),
            "suspicions": [note.to_json() for note in self.notes],
        }


def audit_script(path: Path) -> ScriptReport:
    """Read a training or scoring script. Raises RecordError when it is no .py file or cannot be opened."""
    if path.suffix.lower() != ".py" or not path.is_file() or path.is_symlink():
        raise RecordError(
            f"{path}: neither a folder nor a .py file; point at a record folder, a tree of them, or a script"
        )
    source = read_source(Item(path, printable(path.name), path.stat().st_size))
    if not source.shipped and source.problem:
        raise RecordError(source.problem)
    siblings = _siblings(source, path)
    notes = scan_script(source)
    checks = tuple(_checks(source, siblings, notes))
    command = f"underpar audit {shlex.quote(str(path))}"
    verdict = Verdict(checks, subject={"script": str(path), "sha256": source.sha256, "command": command})
    return ScriptReport(str(path), source, siblings, tuple(notes), verdict)


def _siblings(source: Source, path: Path) -> tuple[Item, ...]:
    """Files beside the script that it runs."""
    inventory = take_inventory(path.parent)
    others = [read_source(i) for i in inventory.with_suffix(".py") if not i.group and i.base != source.item.base]
    return tuple(executed_siblings(source, others, inventory))


def _checks(source: Source, siblings: tuple[Item, ...], notes: list[Note]) -> Iterator[CheckResult]:
    if source.problem:
        yield READ.lacks(f"a script that can be read ({source.problem})", source.problem)
    else:
        layers = f", packed {source.layers} times over" if source.layers else ""
        yield READ.passed(f"{len(source.text):,} characters in {len(source.lines):,} lines{layers}")
    total = len(source.shipped) + sum(item.size for item in siblings)
    runs = "".join(f" + {item.name} {item.size:,}" for item in siblings)
    said = f"{source.item.name} {len(source.shipped):,}{runs} = {total:,} bytes"
    if total > GOLF_ARTIFACT_BYTES:
        yield SIZED.failed(f"{said}, over the cap of {GOLF_ARTIFACT_BYTES:,} without any model")
    else:
        yield SIZED.passed(f"{said}: {format_bytes(GOLF_ARTIFACT_BYTES - total)} left for the model")
    hits = [note for note in notes if note.is_suspicion]
    if hits:
        classes = ", ".join(dict.fromkeys(note.vclass for note in hits))
        yield CLEAR.lacks(f"a replay that confirms or clears {len(hits)} suspicions ({classes})")
    elif not source.problem:
        yield CLEAR.passed("no known construct was recognised; a script can still hide what it does")


def render_script(report: ScriptReport) -> str:
    """The audit of a script as text."""
    return "\n".join(map(printable, _lines(report)))


def _lines(report: ScriptReport) -> Iterator[str]:
    source = report.source
    yield f"{report.path}  sha256 {source.sha256[:16]}..."
    for check in report.verdict.checks:
        word = "FAILED" if check.passed is False else "held" if check.passed else "open"
        text = f"{check.id}: {check.statement}"
        yield from textwrap.wrap(text, WIDTH, initial_indent=f"{word:<13}", subsequent_indent=" " * 13)
    for note in report.notes:
        yield from render_note(note)
        if note.line and note.line <= len(source.lines):
            yield f"{'':<13}| {printable(source.lines[note.line - 1].strip())[:100]}"
    yield ""
    yield f"verdict      {str(report.verdict.ruling).upper()}"
    if source.layers:
        yield f"             lines are those of the unpacked source: underpar audit {shlex.quote(report.path)} --source"
    yield f"repeat       {report.verdict.subject['command']}"
