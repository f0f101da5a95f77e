"""The handbook is what the registry and the examples say."""

from pathlib import Path

import pytest

import underpar
from underpar.referee.attacks.registry import EXAMPLES
from underpar.referee.audit.folder import CHECK_IDS
from underpar.referee.checks import CHECKS
from underpar.referee.classes import CLASSES
from underpar.referee.handbook import handbook

PAGE = Path(underpar.__file__).resolve().parents[2] / "docs" / "referee.md"


def test_the_page_is_up_to_date() -> None:
    if not PAGE.is_file():
        pytest.skip("the documentation is not beside this installation")
    assert PAGE.read_text(encoding="utf-8") == handbook(), "python -m underpar.referee.handbook > docs/referee.md"


def test_every_class_and_example_is_in_it() -> None:
    text = handbook()
    for one in CLASSES.values():
        assert f"## {one.id} {one.title}" in text
    for example in EXAMPLES:
        assert example.class_id in CLASSES
        assert example.forbidden in text
        assert example.allowed in text
        assert set(example.caught_by) <= {check.id for check in CHECKS} | {
            *CHECK_IDS,
            *(f"scan.{id}" for id in CLASSES),
        }
        assert example.forbidden != example.allowed
