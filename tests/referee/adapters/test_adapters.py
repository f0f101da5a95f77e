"""Programs of others behind the interface: what they answer, and what becomes of one that does not, or does too much."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from underpar.core.errors import ConfigError
from underpar.referee.adapters.command import CommandLine, CommandPredictor, read_charges
from underpar.referee.adapters.printed import read_printed
from underpar.referee.adapters.python import PythonPredictor, Target
from underpar.referee.charges import ChargeFault, ProgramRaised, ProgramStopped
from underpar.referee.claim import half_unit
from underpar.referee.jail.run import Jail, JailLimits

PREDICTORS = '''
import numpy as np

seen = []

def uniform(tokens):
    print("what is printed is no answer")
    return np.full(len(tokens) - 1, 5.5)

def remembers(tokens):
    """Charges grow with every question that this process has answered."""
    seen.append(len(tokens))
    return np.full(len(tokens) - 1, float(len(seen)))

class Step:
    def __init__(self):
        self.counts = np.ones(260)
    def step(self, token):
        self.counts[token] += 1
        return self.counts / self.counts.sum()

class Warm:
    def __init__(self):
        self.mean = 0.0
    def warm_up(self, tokens):
        self.mean = float(tokens.mean())
    def charges(self, tokens):
        return np.full(len(tokens) - 1, 1.0 + self.mean)

class Neither:
    pass

def bad(tokens):
    raise ValueError("not these")

def hangs(tokens):
    import time
    time.sleep(100)

def dies(tokens):
    import os, time
    os.kill(os.getppid(), 9)
    time.sleep(100)

def few(tokens):
    return np.zeros(3)

def many(tokens):
    return np.zeros(10**7)

def nan(tokens):
    return np.full(len(tokens) - 1, np.nan)

def negative(tokens):
    return np.full(len(tokens) - 1, -1.0)

def certain(tokens):
    return np.full(len(tokens) - 1, np.inf)

def text(tokens):
    return "charges"
'''
TOKENS = np.random.default_rng(0).integers(0, 260, 700).astype(np.uint16)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("submission") / "predictors.py"
    path.write_text(PREDICTORS)
    return path


@pytest.fixture(scope="module")
def jail(file: Path) -> Iterator[Jail]:
    with Jail(Target.parse(f"{file}:uniform").inputs(), limits=JailLimits(seconds=20)) as made:
        yield made


def predictor(jail: Jail, file: Path, name: str) -> PythonPredictor:
    return PythonPredictor(jail, Target.parse(f"{file}:{name}"), vocab_size=260, bos_id=1)


# ------------------------------------------------------------------------------------------------- Python


def test_a_function_is_asked_over_pipes_and_every_question_finds_the_same_state(jail: Jail, file: Path) -> None:
    one = predictor(jail, file, "remembers")
    try:
        first, second, fresh = one.charges(TOKENS), one.charges(TOKENS[:10]), one.fresh_charges(TOKENS)
    finally:
        one.close()
    assert one.form == "whole"
    assert not one.warms_up
    assert set(first) == set(second) == set(fresh) == {1.0}
    assert len(first) == len(TOKENS) - 1
    assert one.ended is not None
    assert one.ended.code == 0


def test_a_stepwise_predictor_gets_a_token_after_it_has_said_its_distribution(jail: Jail, file: Path) -> None:
    one = predictor(jail, file, "Step")
    try:
        charges, rows = one.charges(TOKENS[:50]), one.distributions(TOKENS[:50])
    finally:
        one.close()
    assert one.form == "stepwise"
    assert rows.shape == (49, 260)
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)
    np.testing.assert_array_equal(charges, -np.log(rows[np.arange(49), TOKENS[1:50]]))


def test_a_warm_up_is_asked_for_in_the_same_process(jail: Jail, file: Path) -> None:
    one = predictor(jail, file, "Warm")
    try:
        plain, warmed = one.charges(TOKENS), one.charges_after(np.full(10, 7, dtype=np.uint16), TOKENS)
    finally:
        one.close()
    assert one.warms_up
    assert plain[0] == 1.0
    assert warmed[0] == 8.0


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("few", "count", "3 charges for 699 positions"),
        ("many", "count", "10,000,000 values"),
        ("nan", "nan", "not a number"),
        ("negative", "negative", "costs -1 nats"),
    ],
)
def test_what_is_no_list_of_charges_is_named(jail: Jail, file: Path, name: str, kind: str, message: str) -> None:
    one = predictor(jail, file, name)
    try:
        with pytest.raises(ChargeFault, match=message) as caught:
            one.charges(TOKENS)
        assert caught.value.kind == kind
    finally:
        one.close()


def test_an_infinite_charge_is_a_charge(jail: Jail, file: Path) -> None:
    one = predictor(jail, file, "certain")
    try:
        assert np.isinf(one.charges(TOKENS)).all()
    finally:
        one.close()


@pytest.mark.parametrize("name", ["bad", "text"])
def test_an_error_of_the_predictor_is_told_and_it_can_be_asked_again(jail: Jail, file: Path, name: str) -> None:
    one = predictor(jail, file, name)
    try:
        for _ in range(3):
            with pytest.raises(ProgramRaised, match="it raised ValueError"):
                one.charges(TOKENS)
    finally:
        one.close()


def test_a_program_that_hangs_or_dies_is_stopped_and_started_once_more(file: Path) -> None:
    target = Target.parse(f"{file}:hangs")
    with Jail(target.inputs(), limits=JailLimits(seconds=4.0)) as small:
        one = PythonPredictor(small, target, vocab_size=260, bos_id=1)
        for _ in range(2):
            with pytest.raises(ProgramStopped, match=r"no answer within 4 s"):
                one.charges(TOKENS)
        with pytest.raises(ProgramStopped, match="asked no more"):
            one.charges(TOKENS)
        one.close()


def test_a_program_that_ends_its_keeper_is_stopped(jail: Jail, file: Path) -> None:
    one = predictor(jail, file, "dies")
    with pytest.raises(ProgramStopped):
        one.charges(TOKENS)
    one.close()


@pytest.mark.parametrize(
    ("name", "message"), [("absent", "AttributeError"), ("Neither", "neither charges"), ("seen", "neither")]
)
def test_what_does_not_load_says_why(jail: Jail, file: Path, name: str, message: str) -> None:
    with pytest.raises(ProgramStopped, match=message):
        predictor(jail, file, name)


def test_targets_are_files_or_modules_of_a_folder(file: Path, tmp_path: Path) -> None:
    assert Target.parse(f"{file}:uniform").name == "predictors.py:uniform"
    assert Target.parse("package.module:name", tmp_path).folder == tmp_path
    assert Target.parse(f"{file}:uniform", file.parent.parent).name == f"{file.parent.name}/predictors.py:uniform"
    for text, folder, message in (
        ("nothing", None, "file.py:name"),
        (f"{file}:not-a-name", None, "file.py:name"),
        ("absent.py:f", None, "no file"),
        ("package.module:name", None, "--dir"),
        (f"{file}:uniform", tmp_path, "is not in"),
    ):
        with pytest.raises(ConfigError, match=message):
            Target.parse(text, folder)


# ------------------------------------------------------------------------------------------------- commands

SCRIPT = """
import sys, os
import numpy as np
tokens = np.fromfile(sys.argv[1], dtype="<u2")[512:]
charges = np.full(len(tokens) - 1, 2.0, dtype="<f4" if sys.argv[3:] == ["<f4"] else "<f8")
print("folder", sorted(os.listdir(".")), os.environ.get("EXTRA"))
if len(sys.argv) > 2:
    if sys.argv[3:] == ["npy"]:
        np.save(open(sys.argv[2], "wb"), np.full(len(tokens) - 1, 2.0, dtype=np.float32))
    else:
        charges.tofile(sys.argv[2])
print(f"val_tokens:{len(tokens) - 1} val_loss:2.0000 val_bpb:2.8854")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("command")
    (made / "score.py").write_text(SCRIPT)
    (made / "weights").write_bytes(b"12345")
    return made


Start = Callable[..., CommandPredictor]


@pytest.fixture
def command(folder: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(text: str, **env: str) -> CommandPredictor:
            jail = stack.enter_context(Jail({"submission": folder}, limits=JailLimits(seconds=20)))
            line = CommandLine.parse(f"{sys.executable} {text}", env)
            return CommandPredictor(jail, line, vocab_size=260, bos_id=1)

        yield start


@pytest.mark.parametrize("form", ["", "<f4", "npy"])
def test_a_command_reads_its_shard_and_writes_its_charges(command: Start, form: str) -> None:
    one = command(f"score.py {{val}} {{charges}} {form}", EXTRA="in {val_dir}")
    assert one.charges_positions
    assert set(one.charges(TOKENS)) == {2.0}
    assert len(one.runs) == 1
    assert one.runs[0].stdout.startswith("folder ['score.py', 'weights'] in /")


def test_a_command_that_only_prints_is_read(command: Start) -> None:
    one = command("score.py {val}")
    assert not one.charges_positions
    found = one.printed(TOKENS)
    assert (found.loss_nats, found.bpb, found.tokens) == (2.0, 2.8854, 699)
    with pytest.raises(ProgramStopped, match="left no file of charges"):
        one.charges(TOKENS)


def test_a_command_that_fails_says_its_last_words(command: Start) -> None:
    one = command("absent.py {val}")
    with pytest.raises(ProgramStopped, match=r"ended with code 2: .*absent\.py"):
        one.charges(TOKENS)
    silent = command("-c pass {val}")
    with pytest.raises(ProgramStopped, match="no line with val_loss"):
        silent.printed(TOKENS)


def test_commands_are_checked_before_they_run() -> None:
    for text, message in (("", "empty"), ("python score.py", "names no shard"), ("python 'score.py", "split")):
        with pytest.raises(ConfigError, match=message):
            CommandLine.parse(text)
    assert CommandLine.parse("x", {"DATA_PATH": "{val_dir}"}).mentions("val_dir")


def test_files_of_charges_that_are_none_are_named() -> None:
    assert read_charges(np.arange(5.0).tobytes(), 5).tolist() == [0, 1, 2, 3, 4]
    for data, message in (
        (b"123", "no whole number"),
        (b"\x93NUMPY\x01\x00junk", "damaged"),
        (_npy(np.array([object()], dtype=object)), "damaged"),
        (_npy(np.zeros((2, 2))), "shape"),
    ):
        with pytest.raises(ChargeFault, match=message):
            read_charges(data, 5)


def _npy(values: np.ndarray) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    return stream.getvalue()


# ------------------------------------------------------------------------------------------------- printed losses


@pytest.mark.parametrize(
    ("text", "loss", "bpb", "tokens"),
    [
        ("final_int8_zlib_roundtrip_exact val_loss:2.07269931 val_bpb:1.22436570", 2.07269931, 1.2243657, None),
        (
            "val_loader:shards pattern=x tokens:62021632\nstep:1/2 val_loss:3.1 val_bpb:1.9 train_time:1ms",
            3.1,
            1.9,
            62021632,
        ),
        ("0/20000 val_loss: 9.0076 val_bpb: 4.1159\nval_tokens: 40540160", 9.0076, 4.1159, 40540160),
        ("ttt_sliding:done val_loss=2.795171 val_bpb=1.082098 elapsed=293.2s", 2.795171, 1.082098, None),
        ("a val_loss:3.0 val_bpb:2.0\nDIAGNOSTIC post_ema val_loss:1.0 val_bpb:0.5", 3.0, 2.0, None),
        ("val_loss:nan val_bpb:nan", None, None, None),
        ("val_loss:3e-1", 0.3, None, None),
    ],
)
def test_published_lines_are_read(text: str, loss: float | None, bpb: float | None, tokens: int | None) -> None:
    found = read_printed(text)
    assert found is not None
    assert (found.loss_nats, found.bpb, found.tokens) == (loss, bpb, tokens)


def test_a_printed_loss_remembers_its_digits_and_its_absence_is_none() -> None:
    found = read_printed("val_loss:2.0726 val_bpb:1.2243")
    assert found is not None
    assert half_unit(found.loss_nats or 0.0) == pytest.approx(5e-5)
    assert read_printed("train_loss:2.0") is None
