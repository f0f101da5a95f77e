"""The registry of classes: complete, in order, each with a rule of the list."""

import pytest

from underpar.core.errors import ConfigError
from underpar.referee.classes import AUDIT, CLASSES, VERIFY, invalidity_class
from underpar.referee.rules import RULES, Mark


def test_the_registry_is_complete_and_in_order() -> None:
    assert list(CLASSES) == [f"V{number:02d}" for number in range(1, 29)]
    for id, one in CLASSES.items():
        assert one.id == id
        assert one.rule in RULES
        assert set(one.found_by) <= {VERIFY, AUDIT}
        assert one.found_by
        assert len(one.forbidden) > 40
        assert len(one.why) > 20
    assert len({one.title for one in CLASSES.values()}) == len(CLASSES)


def test_a_class_carries_the_mark_of_its_rule() -> None:
    assert CLASSES["V01"].mark is Mark.OFFICIAL
    assert CLASSES["V14"].mark is Mark.DISPUTED


def test_an_unknown_class_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'V"):
        invalidity_class("V30")
