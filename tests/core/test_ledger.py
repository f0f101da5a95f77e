"""The read ledger: what was read is noted, what was only looked at is not, and off means off."""

import copy

import pytest

from underpar.core.config import Config, config, diff, field, fingerprint, from_dict, to_dict
from underpar.core.ledger import ReadLedger


@config
class LedgerLeaf(Config):
    rate: float = 0.5
    steps: int = 3

    def scaled(self) -> float:
        return 2 * self.rate


@config
class LedgerRoot(Config):
    leaf: LedgerLeaf = field(default_factory=LedgerLeaf)
    other: LedgerLeaf = field(default_factory=LedgerLeaf)
    several: tuple[LedgerLeaf, ...] = ()
    name: str = "x"

    def check(self) -> None:
        assert self.name


def test_reads_are_noted_by_path() -> None:
    root = LedgerRoot(several=(LedgerLeaf(), LedgerLeaf())).frozen()
    ledger = ReadLedger(root)
    with ledger.recording():
        assert root.leaf.scaled() == 1.0
        assert root.several[1].steps == 3
    assert ledger.reads == {"leaf", "leaf.rate", "several", "several[1].steps"}


def test_comparing_printing_hashing_and_copying_are_no_reads() -> None:
    root, other = LedgerRoot().frozen(), LedgerRoot(name="y").frozen()
    ledger = ReadLedger(root)
    with ledger.recording():
        assert root != other
        assert root == from_dict(to_dict(root), LedgerRoot)
        assert [c.path for c in diff(root, other)] == ["name"]
        assert fingerprint(root) != fingerprint(other)
        assert "LedgerRoot" in str(root)
        assert "rate=0.5" in repr(root)
        copy.deepcopy(root).frozen()
    assert ledger.reads == set()


def test_reads_of_another_tree_and_outside_the_block_are_not_noted() -> None:
    root, other = LedgerRoot().frozen(), LedgerRoot().frozen()
    ledger = ReadLedger(root)
    with ledger.recording():
        assert other.leaf.rate == 0.5
    assert root.leaf.rate == 0.5
    assert ledger.reads == set()
    assert "__getattribute__" not in Config.__dict__


def test_recordings_nest_and_end_with_an_exception() -> None:
    one, two = LedgerRoot().frozen(), LedgerRoot().frozen()
    outer, inner = ReadLedger(one), ReadLedger(two)

    def fail() -> None:
        with inner.recording():
            assert (one.name, two.leaf.steps) == ("x", 3)
            raise KeyError("x")

    with outer.recording():
        with pytest.raises(KeyError):
            fail()
        assert one.other
    assert (outer.reads, inner.reads) == ({"name", "other"}, {"leaf", "leaf.steps"})
    assert "__getattribute__" not in Config.__dict__
