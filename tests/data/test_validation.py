"""The validation stream: bytes from sidecars and from the table, and every way in which it can be wrong."""

import json

import numpy as np
import pytest

from underpar.core.errors import DataError
from underpar.data.corpora import Document
from underpar.data.manifest import MANIFEST_FILE, Manifest, file_entry
from underpar.data.prepare import FirstDocuments, prepare
from underpar.data.shards import open_shard, sidecar_files, write_shard
from underpar.data.tokenizer_base import ByteTokenizer
from underpar.data.tokenizers import SentencePiece, load_tokenizer
from underpar.data.validation import load_validation

TEXTS = [
    "the first text, of some words. " * 20,
    "Ünï \U0001f600 codes; numbers 1234.\n" * 9,
    "third. " * 30,
    "train me",
]


@pytest.fixture
def prepared(tmp_path):
    source = tmp_path / "x.jsonl"
    source.write_text("".join(Document(t).to_json() + "\n" for t in TEXTS), encoding="utf-8")
    tokenizer = SentencePiece(vocab_size=300).build(TEXTS)
    prepare([source], tokenizer, tmp_path / "out", val=FirstDocuments(3), shard_tokens=100, workers=1)
    return tmp_path / "out"


def rewrite(folder, edit=lambda data: None):
    """Bring the manifest's hashes up to date after a change, so that only the stream itself can be at fault."""
    data = json.loads((folder / MANIFEST_FILE).read_text())
    for name in list(data["files"]):
        if not (folder / name).exists():
            del data["files"][name]
        else:
            entry = file_entry(folder / name)
            data["files"][name] = {"size_bytes": entry.size_bytes, "sha256": entry.sha256}
    edit(data)
    (folder / MANIFEST_FILE).write_text(json.dumps(data))


def test_shards_are_joined_and_types_are_as_promised(prepared):
    stream = load_validation(prepared)
    assert (stream.tokens.dtype, stream.byte_counts.dtype, stream.document_starts.dtype) == (
        np.dtype("uint16"), np.dtype("int32"), np.dtype("int64"),
    )  # fmt: skip
    assert len(sidecar_files(prepared)) > 3
    assert stream.text_bytes == sum(len(t.encode()) for t in TEXTS[:3])
    assert (stream.tokens[stream.document_starts] == 1).all()
    assert load_tokenizer(prepared).decode(stream.tokens) == "".join(TEXTS[:3])


def test_without_sidecars_the_table_of_the_tokenizer_counts_the_same(prepared):
    with_sidecar = load_validation(prepared)
    for path in sidecar_files(prepared):
        path.unlink()
    with pytest.raises(DataError, match=r"val_bytes_000000\.bin is missing"):  # never a silent change of method
        load_validation(prepared)
    rewrite(prepared)
    assert np.array_equal(load_validation(prepared).byte_counts, with_sidecar.byte_counts)


def test_a_stream_without_bos_is_refused(tmp_path):
    folder = tmp_path / "out"
    source = tmp_path / "x.jsonl"
    source.write_text('{"text": "ab"}\n{"text": "b"}\n')
    prepare([source], ByteTokenizer(), folder, val=FirstDocuments(1), workers=1)
    tokens = np.array(open_shard(folder / "fineweb_val_000000.bin"))
    tokens[0] = 9
    write_shard(folder / "fineweb_val_000000.bin", tokens)
    rewrite(folder)
    with pytest.raises(DataError, match=r"does not begin with BOS \(id 1\) but with id 9"):
        load_validation(folder)


def test_bytes_on_bos_wrong_sums_and_lost_documents_are_refused(prepared):
    path = sidecar_files(prepared)[0]
    counts = np.array(open_shard(path))
    bad = counts.copy()
    bad[:2] = counts[1], 0
    write_shard(path, bad)
    rewrite(prepared)
    with pytest.raises(DataError, match=r"charges .* bytes to BOS"):
        load_validation(prepared)
    bad = counts.copy()
    bad[1] += 1
    write_shard(path, bad)
    rewrite(prepared)
    with pytest.raises(DataError, match=r"stand for .* bytes, its manifest says"):
        load_validation(prepared)
    write_shard(path, counts)
    rewrite(prepared, lambda data: data["splits"]["val"].update(documents=4))
    with pytest.raises(DataError, match=r"has 3 validation documents .* its manifest says 4"):
        load_validation(prepared)


def test_sidecars_of_another_length_are_refused(prepared):
    path = sidecar_files(prepared)[0]
    write_shard(path, np.array(open_shard(path))[:-1])
    rewrite(prepared)
    with pytest.raises(DataError, match="not as long as its validation shards"):
        load_validation(prepared)


def test_a_set_without_validation_is_refused(prepared):
    for path in [*sidecar_files(prepared), *prepared.glob("fineweb_val_0*.bin")]:
        path.unlink()
    rewrite(prepared, lambda data: data["splits"].pop("val"))
    assert Manifest.load(prepared)
    with pytest.raises(DataError, match="has no validation shards; make it with"):
        load_validation(prepared)
