"""`underpar data`: each action end to end, results on stdout, one-line errors on stderr."""

import json

import numpy as np
import pytest

from underpar.cli import main
from underpar.core.errors import DataError
from underpar.data.manifest import Manifest
from underpar.data.retokenise import retokenise, validation_documents
from underpar.data.shards import open_shard, sidecar_files, write_shard
from underpar.data.validation import load_validation


@pytest.fixture
def text(tmp_path):
    lines = [json.dumps({"text": f"document {i} of some words, with Capitals and é. " * 40}) for i in range(8)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    return tmp_path / "x.jsonl"


@pytest.mark.parametrize("tokenizer", ["byte260", "sp300", "caseops300"])
def test_prepare_show_and_verify(tmp_path, text, capsys, tokenizer):
    out = str(tmp_path / "out")
    command = [
        "data",
        "prepare",
        str(text),
        "--val-docs",
        "2",
        "--tokenizer",
        tokenizer,
        "--out",
        out,
        "--workers",
        "1",
    ]
    assert main([*command, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["tokenizer"]["name"] == tokenizer
    assert shown["splits"]["val"]["documents"] == 2
    assert shown["splits"]["train"]["documents"] == 6
    assert main(["data", "show", out, "--verify"]) == 0
    assert "2 documents" in capsys.readouterr().out
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_a_trained_tokenizer_does_not_see_the_validation_documents(tmp_path, capsys):
    lines = [json.dumps({"text": "qqq zzz " * 400}), json.dumps({"text": "plain words of every kind. " * 100})]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    assert main(["data", "prepare", str(tmp_path / "x.jsonl"), "--val-docs", "1", "--tokenizer", "sp290",
                 "--out", str(tmp_path / "out"), "--workers", "1"]) == 0  # fmt: skip
    from underpar.data.tokenizers import load_tokenizer

    pieces = load_tokenizer(tmp_path / "out").token_bytes
    assert not any(b"zz" in piece or b"qq" in piece for piece in pieces)


def test_a_saved_tokenizer_prepares_a_validation_set_alone(tmp_path, text, capsys):
    base = ["data", "prepare", "--out", str(tmp_path / "a"), "--workers", "1"]
    assert main([*base, str(text), "--val-docs", "1", "--tokenizer", "sp300"]) == 0
    base[3] = str(tmp_path / "b")
    assert main([*base, "--val", str(text), "--tokenizer", str(tmp_path / "a/tokenizer.model")]) == 0
    assert load_validation(tmp_path / "b").document_starts.size == 8
    assert Manifest.load(tmp_path / "a").tokenizer == Manifest.load(tmp_path / "b").tokenizer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "absent.jsonl", "--val-docs", "1", "--out", "x"], "there is no file or folder absent.jsonl"),
        (["prepare", "--val-docs", "1", "--out", "x"], "no training text"),
        (["prepare", "a.txt", "--val-docs", "1", "--tokenizer", "sp", "--out", "x"], "unknown tokenizer 'sp'"),
        (
            ["prepare", "a.txt", "--val", "b.txt", "--tokenizer", "byte260", "--train-bytes", "9", "--out", "x"],
            "is not trained",
        ),
        (["show", "absent"], "absent holds no prepared tokens"),
        (["fineweb", "--source", "absent", "--out", "x"], "--source absent is neither a folder nor a repository"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_verify_finds_tokens_that_are_not_the_text(tmp_path, text, capsys):
    out = tmp_path / "out"
    main(["data", "prepare", str(text), "--val-docs", "2", "--tokenizer", "sp300", "--out", str(out), "--workers", "1"])
    assert retokenise(out) == (2, load_validation(out).text_bytes)
    assert [d.text[:10] for d in validation_documents(out)] == ["document 0", "document 1"]
    path = sidecar_files(out)[0]
    counts = np.array(open_shard(path))
    a, b = np.flatnonzero(counts > 1)[:2]
    counts[a], counts[b] = counts[a] + 1, counts[b] - 1  # the sum stays
    write_shard(path, counts)
    assert load_validation(out)
    with pytest.raises(DataError, match=r"validation document 0 of .* is not the encoding of its text"):
        retokenise(out)
    assert main(["data", "show", str(out), "--verify"]) == 2
    assert "is damaged: its sha256" in capsys.readouterr().err
