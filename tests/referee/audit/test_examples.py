"""The worked examples, each put into a whole record: the twin passes, the cheat is named as it is said to be."""

import re
from pathlib import Path

import pytest

import underpar
from underpar.referee.audit.examples import AUDIT_EXAMPLES
from underpar.referee.audit.folder import CHECK_IDS
from underpar.referee.classes import Example

from .attacks import BASES
from .conftest import Audit
from .forge import Files


def bases_with(text: str) -> list[str]:
    """Honest folders that hold a piece of text."""
    return [name for name, (make, _) in BASES.items() if any(text.encode() in content for content in make().values())]


@pytest.mark.parametrize("example", AUDIT_EXAMPLES, ids=lambda one: one.name)
def test_examples_are_complete(audit: Audit, example: Example) -> None:
    bases = bases_with(example.allowed)
    assert bases, "no honest record holds this line"
    make, track = BASES[bases[-1]]
    honest: Files = make()
    cheat = {n: c.replace(example.allowed.encode(), example.forbidden.encode()) for n, c in honest.items()}
    assert cheat != honest
    assert audit(honest, track, name="2026-01-01_Honest").classes == []
    report = audit(cheat, track, name="2026-01-02_Cheat")
    found = {check.id for check in report.failures} | {note.id for note in report.notes}
    assert set(example.caught_by) <= found
    assert example.class_id in report.classes


def test_the_guide_names_every_check() -> None:
    """docs/audit.md lists the checks; a new one has to be told of."""
    page = Path(underpar.__file__).resolve().parents[2] / "docs" / "audit.md"
    if not page.is_file():
        pytest.skip("the documentation is not beside this installation")
    text = page.read_text(encoding="utf-8")
    known = set(re.findall(r"`([a-z]+\.[a-z]+)`", text)) | {f"speedrun{x}" for x in re.findall(r"`(\.[a-z]+)`", text)}
    assert set(CHECK_IDS) <= known
