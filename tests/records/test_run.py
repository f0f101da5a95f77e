"""Reading run folders: damage, resumed runs, layers by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from underpar.core.errors import RecordError
from underpar.records.run import first_difference, layer_and_part, load_run, without_seed

FakeRun = Callable[..., Path]


def test_resumed_runs_count_the_later_step(fake_run: FakeRun) -> None:
    folder = fake_run(points=20)
    with (folder / "train.jsonl").open("a") as stream:
        stream.write('{"event": "step", "step": 1, "loss_na')  # killed here, then resumed in the same file
        stream.write(json.dumps({"event": "step", "step": 1200, "loss_nats": 0.5, "train_seconds": 9.0}) + "\n")
    run = load_run(folder)
    assert [s["step"] for s in run.steps] == sorted({s["step"] for s in run.steps})
    assert run.steps[-1]["loss_nats"] == 0.5


def test_half_a_last_line_is_dropped(fake_run: FakeRun) -> None:
    folder = fake_run(points=20)
    count = len(load_run(folder).steps)
    with (folder / "train.jsonl").open("a") as stream:
        stream.write('{"event": "step", "st')
    assert len(load_run(folder).steps) == count


def test_damage_in_the_middle_is_an_error(fake_run: FakeRun) -> None:
    folder = fake_run(points=20)
    text = (folder / "train.jsonl").read_text().splitlines()
    text[3] = text[3][:20]
    (folder / "train.jsonl").write_text("\n".join(text))
    with pytest.raises(RecordError, match="line 4 is not JSON"):
        _ = load_run(folder).steps


def test_documents_that_are_none(fake_run: FakeRun) -> None:
    folder = fake_run(points=20)
    (folder / "documents.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(RecordError, match="not a documents archive"):
        _ = load_run(folder).documents


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("score.json", '{"bpb": 1.2}', "no 'bytes'; rerun 'underpar score'"),
        ("config.json", '{"seed": "1", "recipe": "a", "fingerprint": "b", "config": {}}', "seed is '1', not a number"),
        ("verdict.json", "[]", "holds a list"),
        ("train.json", '{"steps": NaN}', "NaN is no JSON number"),
        ("environment.json", '{"gpu": ', "not JSON"),
    ],
)
def test_damaged_files_are_one_line_errors(fake_run: FakeRun, name: str, change: str, words: str) -> None:
    folder = fake_run(points=20)
    (folder / name).write_text(change)
    with pytest.raises(RecordError, match=words) as caught:
        load_run(folder).require(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.3.attn.q.weight", (3, "attn")),
        ("model.layers.11.mlp.up", (11, "mlp")),
        ("blocks.0.resid_mix", (0, "resid_mix")),
        ("embed.weight", (None, "embed")),
        ("skip_weights", (None, "skip_weights")),
    ],
)
def test_layer_of_a_tensor(name: str, expected: tuple[int | None, str]) -> None:
    assert layer_and_part(name) == expected


def test_only_the_runs_own_seed_is_left_out() -> None:
    tree = {"seed": 5, "data": {"seed": 9, "x": [{"seed": 5}]}}
    assert without_seed(tree, 5) == {"data": {"seed": 9, "x": [{}]}}


def test_first_difference_names_the_leaf() -> None:
    assert first_difference({"a": [{"b": 1}]}, {"a": [{"b": 2}]}) == "a[0].b: 1 against 2"
    assert first_difference({"a": 1}, {}) == "a is only in one"
    assert first_difference({"a": 1.0}, {"a": 1.0}) is None
