"""Cheats that only a whole program can commit, run in a jail beside their twins; and preparations of data that leak."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from underpar.data.sample import sample_documents
from underpar.data.shards import write_shard
from underpar.data.tokenizer_base import ByteTokenizer
from underpar.referee.adapters.command import CommandLine
from underpar.referee.adapters.python import Target
from underpar.referee.attacks import programs
from underpar.referee.attacks.registry import ATTACKS, Attack, Shape
from underpar.referee.candidate import Candidate
from underpar.referee.case import ByteLimit
from underpar.referee.jail.run import JailLimits
from underpar.referee.plan import Plan
from underpar.referee.verdict import Ruling, Verdict
from underpar.referee.verify import Effort, verify_program

from ..conftest import write_documents
from .conftest import byte_tokens
from .judging import failed

PROGRAMS = [attack for attack in ATTACKS if attack.shape is Shape.PROGRAM]
FOLDER = Path(programs.__file__).parent
SHORT = Plan(segment_tokens=64, flip_trials=1, canary_tokens=64, whole_stream=True)
SIZE_LIMIT = 100_000
TIME_LIMIT = 12.0
"""Seconds; the honest twin stays below it on a busy machine too, and the other sleeps longer."""
NEEDS_LOG = {"V11", "V19", "V25"}
DISPUTED = {"V21", "V25"}
"""Another machine may be faster, and a download that failed changed nothing here."""


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("held_out")
    write_shard(folder / "fineweb_val_000000.bin", byte_tokens([*texts[:25], "naïve café, 日本語のテキスト"]))
    write_documents(folder / "text.jsonl", (*texts[:25], "naïve café, 日本語のテキスト"))
    ByteTokenizer().save(folder / "tokenizer")
    return folder / "fineweb_val_000000.bin"


@pytest.fixture(scope="module")
def submission(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """Every program, a training shard that should not be there, and a table that nobody counted."""
    folder = tmp_path_factory.mktemp("programs") / "submission"
    folder.mkdir()
    for path in FOLDER.glob("*.py"):
        shutil.copy(path, folder)
    write_shard(folder / "fineweb_train_000000.bin", byte_tokens(texts[25:]))
    np.save(folder / "table.npy", np.full((260, 260), 0.05))
    return folder


def verdict_on(attack: Attack, which: str, shard: Path, submission: Path) -> Verdict:
    command = CommandLine.parse(f"{sys.executable} {attack.name}.py {which} {{val}} {{charges}}")
    candidate = Candidate(
        start=command,
        val=(shard,),
        folder=submission,
        tokenizer=shard.parent / "tokenizer",
        text=shard.parent / "text.jsonl",
        limit=ByteLimit(SIZE_LIMIT, "this test"),
        limit_seconds=TIME_LIMIT if attack.class_id == "V21" else None,
        limits=JailLimits(seconds=60),
    )
    return verify_program(candidate, effort=Effort(plan=SHORT, seed=3))


@pytest.mark.parametrize("attack", PROGRAMS, ids=lambda attack: attack.name)
def test_the_program_is_refused_and_its_class_is_named(attack: Attack, shard: Path, submission: Path) -> None:
    verdict = verdict_on(attack, "forbidden", shard, submission)
    if attack.class_id in NEEDS_LOG and verdict.measured["facts"]["sandbox"]["files"] is None:
        pytest.skip("no log of files: strace is not installed, or may not trace")
    found = failed(verdict)
    assert attack.caught_by[0] in found
    assert attack.class_id in found[attack.caught_by[0]]
    assert verdict.ruling is (Ruling.DISPUTED if attack.class_id in DISPUTED else Ruling.INVALID)


@pytest.mark.parametrize("attack", PROGRAMS, ids=lambda attack: attack.name)
def test_its_honest_twin_passes(attack: Attack, shard: Path, submission: Path) -> None:
    verdict = verdict_on(attack, "allowed", shard, submission)
    assert failed(verdict) == {}
    assert verdict.ruling is Ruling.VALID, verdict.reason


def test_training_data_that_is_not_in_the_submission_is_not_there(
    shard: Path, submission: Path, tmp_path: Path
) -> None:
    """The program that would read it finds nothing, and is as good as one without."""
    bare = shutil.copytree(submission, tmp_path / "bare", ignore=shutil.ignore_patterns("fineweb_train_*"))
    verdict = verdict_on(PROGRAMS[0], "forbidden", shard, bare)
    assert verdict.ruling is Ruling.VALID, verdict.reason


# ------------------------------------------------------------------------------------------------- preparations


@pytest.fixture(scope="module")
def uniform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("uniform") / "uniform.py"
    path.write_text("import numpy as np\n\ndef uniform(tokens):\n    return np.full(len(tokens) - 1, np.log(260))\n")
    return path


@pytest.mark.parametrize("which", ["forbidden", "allowed"])
def test_a_split_that_trains_on_what_is_scored(which: str, uniform: Path, tmp_path: Path) -> None:
    attack = next(one for one in ATTACKS if one.class_id == "V09")
    train, held_out = attack.load(which)([document.text[:150] for document in sample_documents("train")][:80])
    write_shard(tmp_path / "a_train_000000.bin", byte_tokens(train))
    write_shard(tmp_path / "a_val_000000.bin", byte_tokens(held_out))
    candidate = Candidate(
        start=Target.parse(f"{uniform}:uniform"),
        val=(tmp_path / "a_val_000000.bin",),
        train=(tmp_path / "a_train_000000.bin",),
        vocab_size=260,
    )
    found = failed(verify_program(candidate, effort=Effort(plan=SHORT, seed=3)))
    assert found == ({"data.overlap": ("V09",)} if which == "forbidden" else {})


@pytest.mark.parametrize("which", ["forbidden", "allowed"])
def test_a_text_that_was_rewritten_before_it_was_scored(
    which: str, texts: list[str], uniform: Path, tmp_path: Path
) -> None:
    attack = next(one for one in ATTACKS if one.class_id == "V17")
    write_shard(tmp_path / "a_val_000000.bin", byte_tokens([attack.load(which)(text) for text in texts]))
    ByteTokenizer().save(tmp_path / "tokenizer")
    candidate = Candidate(
        start=Target.parse(f"{uniform}:uniform"),
        val=(tmp_path / "a_val_000000.bin",),
        tokenizer=tmp_path / "tokenizer",
        text=write_documents(tmp_path / "text.jsonl", tuple(texts)),
    )
    found = failed(verify_program(candidate, effort=Effort(plan=SHORT, seed=3)))
    assert ("text.shard" in found) == (which == "forbidden")
    assert "V17" in found.get("text.shard", ("V17",))


def test_every_class_that_verify_looks_for_has_an_example() -> None:
    from underpar.referee.classes import CLASSES, VERIFY

    shown = {attack.class_id for attack in ATTACKS}
    assert shown == {id for id, one in CLASSES.items() if VERIFY in one.found_by}
