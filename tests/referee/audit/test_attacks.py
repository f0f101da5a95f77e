"""Every cheat on a folder is caught and named with its class, alone and beside another; the honest twin passes."""

import itertools
import random

import pytest

from underpar.referee.classes import AUDIT, CLASSES
from underpar.referee.verdict import Ruling

from .attacks import ATTACKS, BASES, Attack
from .conftest import Audit


@pytest.mark.parametrize("one", ATTACKS, ids=lambda one: f"{one.vclass}-{one.name}")
def test_each_cheat_is_named(audit: Audit, one: Attack) -> None:
    make, track = BASES[one.base]
    files = make()
    one.mutate(files)
    report = audit(files, track)
    named = report.classes if one.ruling is not Ruling.UNVERIFIABLE else [one.vclass]
    assert one.vclass in named
    if one.check == "scan":
        assert one.vclass in [note.vclass for note in report.suspicions]
        note = next(n for n in report.suspicions if n.vclass == one.vclass)
        assert note.line > 0
        assert note.file
    elif one.ruling is Ruling.UNVERIFIABLE:
        assert one.check in [check.id for check in report.verdict.checks if check.missing]
    else:
        assert one.check in [check.id for check in report.failures]
    assert report.verdict.ruling is one.ruling, report.verdict.reason


@pytest.mark.parametrize("base", BASES)
def test_the_honest_twins_pass(audit: Audit, base: str) -> None:
    make, track = BASES[base]
    report = audit(make(), track)
    assert report.verdict.ruling is Ruling.VALID
    assert report.classes == []
    assert report.notes == ()


def test_every_class_of_folders_has_a_cheat() -> None:
    concerned = {id for id, one in CLASSES.items() if AUDIT in one.found_by}
    assert concerned - {one.vclass for one in ATTACKS} == set()


def pairs() -> list[tuple[Attack, Attack]]:
    """A sample of all pairs of cheats on one base that touch different files or lines."""
    found = [
        (a, b)
        for a, b in itertools.combinations(ATTACKS, 2)
        if a.base == b.base and Ruling.UNVERIFIABLE not in (a.ruling, b.ruling)
    ]
    return random.Random(7).sample(found, 120)


@pytest.mark.parametrize(("first", "second"), pairs(), ids=lambda one: one.name)
def test_two_cheats_at_once_are_both_named(audit: Audit, first: Attack, second: Attack) -> None:
    make, track = BASES[first.base]
    files = make()
    try:
        first.mutate(files)
        before = dict(files)
        second.mutate(files)
    except AssertionError:
        pytest.skip("the second change has lost its place to the first")
    undone = make()
    second.mutate(undone)
    if files == undone and first.name != second.name:
        pytest.skip("the second change replaces the first")
    assert files != before
    named = audit(files, track).classes
    assert second.vclass in named
    if not _overwritten(before, make(), files):
        assert first.vclass in named


def _overwritten(first: dict[str, bytes], honest: dict[str, bytes], both: dict[str, bytes]) -> bool:
    """Whether the second change has rewritten what the first had changed."""
    return any(first[name] != honest.get(name) and both.get(name) not in (first[name],) for name in first)
