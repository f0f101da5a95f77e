"""The manifest: round trip, every kind of mismatch with the folder, and messages that say which command makes the data."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.core.errors import DataError
from underpar.data.corpora import Document
from underpar.data.manifest import MANIFEST_FILE, Manifest
from underpar.data.prepare import FirstDocuments, prepare
from underpar.data.shards import write_shard
from underpar.data.tokenizer_base import ByteTokenizer


@pytest.fixture
def prepared(tmp_path):
    source = tmp_path / "x.jsonl"
    source.write_text("".join(Document(f"text number {i}").to_json() + "\n" for i in range(5)))
    prepare([source], ByteTokenizer(), tmp_path / "out", val=FirstDocuments(2), workers=1)
    return tmp_path / "out"


def test_written_manifest_reads_back(prepared):
    manifest = Manifest.load(prepared, check_hashes=True)
    assert manifest.to_json() == (prepared / MANIFEST_FILE).read_text()
    assert set(manifest.files) | {MANIFEST_FILE} == {p.name for p in prepared.iterdir()}
    assert manifest.tokenizer == ByteTokenizer().identity
    assert "byte260" in manifest.describe()
    assert "5 tokens" not in manifest.describe()


def test_manifest_names_no_path_and_no_time(prepared):
    text = (prepared / MANIFEST_FILE).read_text()
    assert str(prepared.parent) not in text
    assert json.loads(text)["origin"]["train"][0]["name"] == "x.jsonl"


def test_fingerprint_follows_the_tokens_and_the_tokenizer(prepared):
    manifest = Manifest.load(prepared)
    name, entry = next(iter(manifest.files.items()))
    other_file = replace(manifest, files={**manifest.files, name: replace(entry, sha256="0" * 64)})
    other_model = replace(manifest, tokenizer={**manifest.tokenizer, "sha256": "0" * 64})
    assert len({m.fingerprint for m in (manifest, other_file, other_model)}) == 3
    assert replace(manifest, split_rule={"rule": "another"}).fingerprint == manifest.fingerprint


def test_an_empty_or_absent_folder_says_how_to_make_the_data(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(
            DataError, match=r"make it with 'underpar data prepare .* --out .*' or 'underpar data fineweb"
        ):
            Manifest.load(folder)


def test_missing_changed_and_foreign_files_are_named(prepared):
    shard = prepared / "fineweb_train_000000.bin"
    raw = shard.read_bytes()
    shard.write_bytes(raw[:-2])
    with pytest.raises(DataError, match=r"fineweb_train_000000\.bin is 1,\d+ B, the manifest says"):
        Manifest.load(prepared)
    shard.write_bytes(raw[:-2] + b"\x09\x00")
    assert Manifest.load(prepared)
    with pytest.raises(DataError, match=r"train_000000\.bin is damaged: its sha256"):
        Manifest.load(prepared, check_hashes=True)
    shard.unlink()
    with pytest.raises(DataError, match=r"fineweb_train_000000\.bin is missing"):
        Manifest.load(prepared)
    shard.write_bytes(raw)
    write_shard(prepared / "fineweb_train_000001.bin", np.ones(3, np.uint16))
    with pytest.raises(DataError, match=r"fineweb_train_000001\.bin is not in the manifest"):
        Manifest.load(prepared)


def edit(folder, change):
    path = folder / MANIFEST_FILE
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="other"), "is not one of underpar-tokens"),
        (lambda d: d.update(version=99), "format version 99, this is 1"),
        (lambda d: d.pop("bos_id"), "is damaged"),
        (lambda d: d.update(surprise=1), "is damaged.*surprise"),
        (lambda d: d["splits"]["val"].update(tokens=7), "val tokens, the manifest says 7"),
        (lambda d: d["splits"]["val"].update(tokens="7"), "is damaged"),
        (lambda d: d["splits"].pop("train"), "train tokens, the manifest says 0"),
        (lambda d: d["splits"].update(test=d["splits"]["val"]), "is damaged"),
        (lambda d: d["files"].update({"../x": d["files"]["tokenizer.json"]}), "is damaged"),
        (lambda d: d["files"].update(x={"size_bytes": -1, "sha256": "0" * 64}), "is damaged"),
        (lambda d: d.update(tokenizer=[]), "is damaged"),
        (lambda d: d.update(files=None), "is damaged"),
    ],
)
def test_a_manifest_that_does_not_hold_is_refused(prepared, change, message):
    edit(prepared, change)
    with pytest.raises(DataError, match=message) as caught:
        Manifest.load(prepared)
    assert "\n" not in str(caught.value)


def test_json_of_another_kind_is_refused(prepared):
    for text in ("", "[1]", "{", '{"format": "underpar-tokens", "version": 1}'):
        (prepared / MANIFEST_FILE).write_text(text)
        with pytest.raises(DataError):
            Manifest.load(prepared)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(field=st.sampled_from(sorted(Manifest.__dataclass_fields__)), value=json_values)
@settings(max_examples=60, deadline=None)
def test_any_value_anywhere_gives_a_manifest_or_a_data_error(shared_set, field, value):
    original = (shared_set / MANIFEST_FILE).read_text()
    try:
        edit(shared_set, lambda d: d.update({field: value}))
        with suppress(DataError):
            Manifest.load(shared_set).describe()
    finally:
        (shared_set / MANIFEST_FILE).write_text(original)


@pytest.fixture(scope="module")
def shared_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    (folder / "x.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    prepare([folder / "x.jsonl"], ByteTokenizer(), folder / "out", val=FirstDocuments(1), workers=1)
    return folder / "out"
