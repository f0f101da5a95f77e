"""A record that underpar wrote itself, audited: nothing to find, and nothing left once it is tampered with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from underpar.records import Claim, write_record
from underpar.referee.audit.folder import audit_folder
from underpar.referee.audit.tree import audit_tree
from underpar.referee.verdict import Ruling

from .conftest import Finished

WHO = {"author": "A. Author", "github_id": "author", "name": "tiny", "blurb": "A tiny model.", "date": "2026-01-02"}


@pytest.fixture
def record(finished: Finished, tmp_path: Path) -> Path:
    """A record of the two seeds, with a claim."""
    folders = [run.path for run in finished.folders]
    return write_record(folders, tmp_path / "record", **WHO, claim=Claim(9.0)).folder


def test_our_own_record_has_no_finding(record: Path) -> None:
    report = audit_folder(record)
    assert report.verdict.ruling is Ruling.VALID, report.verdict.reason
    assert report.notes == ()
    assert [check.id for check in report.failures] == []
    assert {"artifact.file", "artifact.verdict", "bytes.text"} <= {c.id for c in report.verdict.checks if c.passed}
    assert report.score is not None
    assert report.score.n == 2
    stored = json.loads((record / "submission.json").read_text())
    assert report.score.mean == pytest.approx(stored["val_bpb"], abs=1e-8)
    assert audit_tree(record.parent).counts == {"valid": 1}


def swap_artifacts(record: Path) -> None:
    first, second = sorted(record.glob("artifact_*.upar"))
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)


def grow_the_code(record: Path) -> None:
    with (record / "code.tar.xz").open("ab") as stream:
        stream.write(b"\0" * 64)


def improve_a_log(record: Path) -> None:
    log = sorted(record.glob("train_*.log"))[0]
    lines = log.read_text().splitlines()
    score = float(lines[-1].rpartition(":")[2])
    log.write_text("\n".join(lines).replace(f"{score:.8f}", f"{score * 0.99:.8f}") + "\n")


def improve_everything(record: Path) -> None:
    """Log and submission agree with each other, but not with the bytes that were verified."""
    improve_a_log(record)
    stored = json.loads((record / "submission.json").read_text())
    entry = next(iter(stored["seed_results"].values()))
    stored["val_bpb"] -= entry["val_bpb"] * 0.005
    entry["val_bpb"] *= 0.99
    (record / "submission.json").write_text(json.dumps(stored))


def lift_a_verdict(record: Path) -> None:
    path = sorted(record.glob("verdict_*.json"))[0]
    stored = json.loads(path.read_text())
    stored["checks"][0]["passed"] = False
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("tamper", "check", "ruling"),
    [
        (swap_artifacts, "artifact.file", Ruling.INVALID),
        (grow_the_code, "artifact.file", Ruling.INVALID),
        (improve_a_log, "score.logged", Ruling.INVALID),
        (improve_everything, "bytes.text", Ruling.INVALID),
        (lift_a_verdict, "artifact.verdict", Ruling.UNVERIFIABLE),
    ],
)
def test_tampering_is_found(record: Path, tamper: Callable[[Path], None], check: str, ruling: Ruling) -> None:
    shutil.copytree(record, record.parent / "copy")
    tamper(record.parent / "copy")
    report = audit_folder(record.parent / "copy")
    assert report.verdict.ruling is ruling
    assert check in [c.id for c in report.verdict.checks if c.passed is False or c.missing]
    assert audit_folder(record).verdict.is_valid
