"""Programs of others from the command line to the verdict: honest ones, hostile ones, and the evidence that they leave."""

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from underpar.cli import build_parser
from underpar.core.errors import ConfigError, DataError, UnderparError
from underpar.data.shards import write_shard
from underpar.referee.adapters.command import CommandLine
from underpar.referee.adapters.python import Target
from underpar.referee.candidate import Candidate, val_shards
from underpar.referee.case import Case
from underpar.referee.checks import run_checks
from underpar.referee.jail.run import JailLimits
from underpar.referee.jail.streams import Level
from underpar.referee.plan import Plan
from underpar.referee.render import render
from underpar.referee.verdict import Ruling, Verdict
from underpar.referee.verify import Effort, replay, verify_program, write_verdict

PROGRAM = """
import sys, time, os
import numpy as np

def read(path):
    return np.fromfile(path, dtype="<u2")[512:]

def honest(tokens):
    counts, charges = np.full(50, 0.5), []
    for token in tokens[1:].tolist():
        charges.append(-np.log(counts[token] / counts.sum()))
        counts[token] += 1
    return np.array(charges)

def peeks(tokens):
    counts = np.bincount(tokens, minlength=50) + 0.5
    return -np.log(counts / counts.sum())[tokens[1:]]

class Step:
    def __init__(self):
        self.counts = np.full(50, 0.5)
        self.first = True
    def step(self, token):
        self.counts[token] += 0 if self.first else 1
        self.first = False
        return self.counts / self.counts.sum()

def main(kind, val, out):
    tokens = read(val)
    charges = honest(tokens)
    if kind == "hangs":
        time.sleep(100)
    if kind == "bombs":
        while True:
            os.fork()
    if kind == "fills":
        for number in range(1000):
            np.zeros(1 << 20).tofile(f"{number}")
    if kind == "eats":
        charges = np.zeros(1 << 34)
    if kind == "few":
        charges = charges[:5]
    if kind == "nan":
        charges[3] = np.nan
    if kind == "outside":
        try:
            open("/usr/lib/mine", "w")
        except OSError:
            pass
    if kind == "floods":
        print("x" * (50 << 20))
    charges.tofile(out)
    print(f"val_tokens:{len(charges)} val_loss:{charges.mean():.8f}" if kind != "prints_nan" else "val_loss:nan")

if __name__ == "__main__":
    main(*sys.argv[1:])
"""
QUICK = Effort(plan=Plan(segment_tokens=60, flip_trials=1, canary_tokens=60, whole_stream=True), seed=1)
SMALL = JailLimits(seconds=10, memory_bytes=1 << 30, processes=30, written_bytes=64 << 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("program")
    (made / "submission").mkdir()
    (made / "submission" / "program.py").write_text(PROGRAM)
    tokens = np.random.default_rng(0).integers(2, 50, 400).astype(np.uint16)
    tokens[::50] = 1
    write_shard(made / "fineweb_val_000000.bin", tokens)
    return made


def command(folder: Path, kind: str, charges: str = "{charges}", **changes: object) -> Candidate:
    line = CommandLine.parse(f"{sys.executable} program.py {kind} {{val}} {charges}")
    given = {"limits": SMALL, "vocab_size": 50, "folder": folder / "submission"} | changes
    return Candidate(start=line, val=val_shards(folder), **given)  # type: ignore[arg-type]


def python(folder: Path, name: str) -> Candidate:
    return Candidate(
        start=Target.parse(f"{folder / 'submission' / 'program.py'}:{name}"), val=val_shards(folder), vocab_size=50
    )


def check(verdict: Verdict, id: str):
    return next(one for one in verdict.checks if one.id == id)


# ------------------------------------------------------------------------------------------------- verdicts


def test_an_honest_command_is_valid_and_its_printed_score_is_held_against_its_charges(folder: Path) -> None:
    verdict = verify_program(command(folder, "honest"), effort=QUICK)
    assert verdict.ruling is Ruling.VALID, verdict.reason
    assert check(verdict, "score.claim").passed
    assert check(verdict, "coverage.claim").passed
    facts = verdict.measured["facts"]
    assert facts["alphabet"] == {"vocab_size": 50, "bos_id": 1, "tokens": 400}
    assert facts["score"]["tokens"] == 399
    assert facts["sandbox"]["runs"] == 6


def test_a_budget_makes_a_plan_and_the_plan_repeats_it(folder: Path) -> None:
    first = verify_program(python(folder, "honest"), effort=Effort(budget_seconds=6.0, seed=5))
    plan = Plan.from_json(first.measured["facts"]["plan"])
    again = verify_program(python(folder, "honest"), effort=Effort(plan=plan, seed=5))
    assert first.ruling is again.ruling is Ruling.VALID
    for name in ("flip", "canary_uniform", "score"):
        assert first.measured["facts"][name] == again.measured["facts"][name]


def test_a_cheat_in_a_jail_is_invalid_and_a_stepwise_predictor_is_valid(folder: Path) -> None:
    cheat = verify_program(python(folder, "peeks"), effort=QUICK)
    assert cheat.ruling is Ruling.INVALID
    assert cheat.decisive is not None
    assert cheat.decisive.id == "causality.flip"
    assert "V01" in cheat.decisive.classes
    step = verify_program(
        python(folder, "Step"), effort=Effort(plan=Plan(segment_tokens=60, sweep_positions=1), seed=1)
    )
    assert step.ruling is Ruling.VALID, step.reason
    assert len(check(step, "normalisation.sweep").evidence["sums"]) == 59


def test_a_program_that_only_prints_is_unverifiable_at_best(folder: Path) -> None:
    verdict = verify_program(command(folder, "honest", "/dev/null"), effort=Effort(seed=1))
    assert verdict.ruling is Ruling.UNVERIFIABLE
    assert "printed loss" in verdict.reason
    assert check(verdict, "canary.printed").passed
    assert check(verdict, "repeat.printed").passed
    assert verdict.measured["facts"]["sandbox"]["runs"] == 3
    invalid = verify_program(command(folder, "prints_nan", "/dev/null"), effort=Effort(seed=1))
    assert check(invalid, "coverage.printed").classes == ("V28",)


def test_a_printed_loss_below_the_entropy_of_random_text_is_invalid(folder: Path) -> None:
    (folder / "submission" / "cheap.py").write_text("print('val_tokens:399 val_loss:1.0')")
    candidate = command(folder, "x")
    cheap = CommandLine.parse(f"{sys.executable} cheap.py {{val}}")
    verdict = verify_program(Candidate(cheap, candidate.val, candidate.folder, vocab_size=50), effort=Effort(seed=1))
    assert verdict.ruling is Ruling.INVALID
    assert "V04" in check(verdict, "canary.printed").classes


# ------------------------------------------------------------------------------------------------- hostile programs


@pytest.mark.parametrize(
    ("kind", "ruling", "words"),
    [
        ("hangs", Ruling.UNVERIFIABLE, "more than 10 s"),
        ("bombs", Ruling.UNVERIFIABLE, "processes at once"),
        ("fills", Ruling.UNVERIFIABLE, "code 1"),
        ("eats", Ruling.UNVERIFIABLE, "code 1"),
        ("few", Ruling.INVALID, "5 charges for"),
        ("nan", Ruling.INVALID, "not a number"),
        ("floods", Ruling.VALID, "valid"),
    ],
)
def test_a_hostile_program_costs_bounded_time_and_gets_a_clear_finding(
    folder: Path, kind: str, ruling: Ruling, words: str
) -> None:
    began = time.perf_counter()
    verdict = verify_program(command(folder, kind), effort=QUICK)
    assert verdict.ruling is ruling, verdict.reason
    assert words in verdict.reason
    assert time.perf_counter() - began < 60
    assert not list(folder.glob("submission/[0-9]*")), "nothing is written into the submission itself"


def test_an_attempt_to_write_outside_is_disputed(folder: Path) -> None:
    verdict = verify_program(command(folder, "outside"), effort=QUICK)
    if verdict.measured["facts"]["sandbox"]["files"] is None:
        pytest.skip("no log of files: strace is not installed, or may not trace")
    assert verdict.ruling is Ruling.DISPUTED
    assert "/usr/lib/mine" in verdict.reason
    assert "Reading one" in verdict.reason
    assert "Reading two" in verdict.reason
    assert "leniently: valid" in render(verdict)


def test_a_program_that_does_not_start_is_unverifiable(folder: Path) -> None:
    verdict = verify_program(python(folder, "absent"), effort=QUICK)
    assert verdict.ruling is Ruling.UNVERIFIABLE
    assert "does not load" in verdict.reason


def test_a_level_that_is_not_closed_is_unverifiable(folder: Path) -> None:
    verdict = verify_program(python(folder, "honest"), effort=QUICK)
    open_level = Level(problem="no namespaces here")
    measured = dict(verdict.measured)
    measured["closure"] = {
        "network": False,
        "files": False,
        "processes": False,
        "problem": "x",
        "statement": open_level.statement,
    }
    again = Verdict(run_checks(Case.from_json(measured)))
    assert again.ruling is Ruling.UNVERIFIABLE
    assert "allows namespaces" in again.reason


# ------------------------------------------------------------------------------------------------- evidence


@pytest.fixture(scope="module")
def evidence(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evidence") / "verdict.json"
    write_verdict(path, verify_program(python(folder, "peeks"), effort=QUICK))
    return path


def test_a_verdict_is_derived_again_from_its_evidence(evidence: Path) -> None:
    again = replay(evidence)
    assert again.ruling is Ruling.INVALID
    assert json.loads(json.dumps(again.to_json())) == json.loads(evidence.read_text())


def test_evidence_that_was_edited_does_not_pass(evidence: Path, tmp_path: Path) -> None:
    data = json.loads(evidence.read_text())
    for trial in data["measured"]["facts"]["flip"]["trials"]:
        trial["change_nats"], trial["moved"] = 0.0, 0
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"says 'invalid', its evidence says 'valid'|does not follow"):
        replay(path)
    data = json.loads(evidence.read_text())
    data["measured"]["facts"]["canary_uniform"]["purse_log2"] = [500.0] * 13
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"canary\.uniform does not follow"):
        replay(path)
    path.write_text(json.dumps({"verdict": "valid", "checks": [], "measured": {}}))
    with pytest.raises(DataError):
        replay(path)


@pytest.mark.parametrize("junk", [None, "x", [], {}, -1])
def test_evidence_of_another_form_is_one_error(evidence: Path, tmp_path: Path, junk: object) -> None:
    path = tmp_path / "edited.json"
    stages = json.loads(evidence.read_text())["measured"]["facts"]
    places = [(stage, None) for stage in stages] + [(stage, key) for stage, fact in stages.items() for key in fact]
    for stage, key in places:
        data = json.loads(evidence.read_text())
        facts = data["measured"]["facts"]
        if key is None:
            facts[stage] = junk
        else:
            facts[stage][key] = junk
        path.write_text(json.dumps(data))
        with contextlib.suppress(DataError):
            assert replay(path).ruling is Ruling.INVALID, f"{stage}.{key} was not needed for it"


# ------------------------------------------------------------------------------------------------- the command line


def run(*words: object) -> int:
    args = build_parser().parse_args(["verify", *map(str, words)])
    return args.run(args)


def test_the_verb_judges_a_python_object_and_leaves_evidence_and_a_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"{folder / 'submission' / 'program.py'}:peeks"
    code = run(
        "--python", target, "--val", folder, "--vocab-size", 50, "--budget", "5s", "--seed", 3, "--out", tmp_path
    )
    printed = capsys.readouterr().out
    assert code == 1
    assert "INVALID" in printed
    assert (
        f"repeat       underpar verify --python {target} --val {folder} --vocab-size 50 --seed 3 --budget 5s" in printed
    )
    page = (tmp_path / "verdict.html").read_text()
    assert "<script src" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "train on the held-out text, then score it" in page
    assert run("--replay", tmp_path / "verdict.json", "--json") == 1
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "verdict.json").read_text())
    assert run("--python", target, "--val", folder, "--vocab-size", 50, "--plan", tmp_path / "verdict.json") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name one thing"),
        (("--python", "a.py:f", "--command", "x {val}"), "name one thing"),
        (("--python", "a.py:f"), "--val"),
        (("--command", "score", "--val", "VAL"), "names no shard"),
        (("--command", "score {val}", "--val", "/nowhere"), "no validation shard"),
        (("--command", "score {val}", "--val", "VAL", "--env", "X"), "NAME=VALUE"),
        (("--command", "score {val}", "--val", "VAL", "--budget", "soon"), "is no time"),
        (("--command", "score {val}", "--val", "VAL", "--dir", "/nowhere"), "no folder"),
        (("--command", "score {val}", "--val", "VAL", "--text", "/nowhere"), "no text"),
        (("--command", "score {val}", "--val", "VAL", "--vocab-size", "3"), "does not hold"),
        (("--replay", "/nowhere"), "cannot read"),
    ],
)
def test_mistakes_cost_one_line(folder: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UnderparError, match=message):
        run(*[str(folder) if word == "VAL" else word for word in words])


def test_a_shard_that_is_too_short_and_a_folder_that_is_too_large_are_refused(folder: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "a_val_000000.bin", np.arange(5, dtype=np.uint16))
    candidate = Candidate(CommandLine.parse("x {val}"), val_shards(tmp_path))
    with pytest.raises(DataError, match="16 at least"):
        verify_program(candidate)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(DataError, match="more than"):
        Candidate(CommandLine.parse("x {val}"), val_shards(folder), folder=tmp_path)
    with pytest.raises(ConfigError, match="unit"):
        Candidate(CommandLine.parse("x {val}"), val_shards(folder), unit="bananas")
