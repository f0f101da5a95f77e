"""Documents from every kind of file, and an error with file and line for every kind of damage."""

import gzip
import json
import lzma

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.core.errors import DataError
from underpar.data import corpora
from underpar.data.corpora import Document, input_files, stream_documents

COMPRESS = {
    ".jsonl": bytes,
    ".jsonl.gz": gzip.compress,
    ".jsonl.xz": lzma.compress,
    ".jsonl.zst": zstandard.ZstdCompressor().compress,
}
TEXTS = ["one", "", "\0 two\r\n  lines \u2028 \u2581 \U0001f600", "x" * 70_000, "last"]


def lines_of(texts):
    return "".join(json.dumps({"text": text, "id": str(i)}) + "\n" for i, text in enumerate(texts)).encode()


@pytest.mark.parametrize("suffix", COMPRESS)
def test_json_lines_of_every_compression(tmp_path, suffix):
    path = tmp_path / f"docs{suffix}"
    path.write_bytes(COMPRESS[suffix](lines_of(TEXTS)))
    assert list(stream_documents([path])) == [Document(text, str(i)) for i, text in enumerate(TEXTS)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
@settings(max_examples=50, deadline=None)
def test_written_lines_read_back(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    documents = [Document(text, source="s") for text in texts]
    path.write_text("".join(d.to_json() + "\n" for d in documents), encoding="utf-8", newline="")
    assert list(stream_documents([path])) == documents


def test_a_zstd_file_may_have_many_frames(tmp_path):
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(b"".join(zstandard.compress(lines_of([text])) for text in TEXTS))
    assert [d.text for d in stream_documents([path])] == TEXTS


@pytest.mark.parametrize("suffix", [s for s in COMPRESS if s != ".jsonl"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_files_are_named(tmp_path, suffix, damage):
    path = tmp_path / f"docs{suffix}"
    whole = bytearray(COMPRESS[suffix](lines_of([json.dumps(list(range(i, i + 500))) for i in range(300)])))
    if damage == "cut":
        whole = whole[: len(whole) // 2]
    else:
        for place in range(len(whole) // 2, len(whole) // 2 + 64):
            whole[place] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"docs\.jsonl\.\w+"):
        list(stream_documents([path]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "x.jsonl:3 is not a JSON line"),
        (b"\xff\xfe", "x.jsonl:3 is not a JSON line"),
        (b'{"body": "x"}', 'x.jsonl:3: expected an object with a string at "text", got keys body'),
        (b'{"text": 5}', "x.jsonl:3: expected"),
        (b"[1]", "got list"),
        (b"[" * 100_000, "x.jsonl:3 is not a JSON line"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "fine"}\n\n' + line + b"\n")
    documents = stream_documents([path])
    assert next(documents).text == "fine"
    with pytest.raises(DataError, match=message):
        next(documents)


def test_folder_of_texts_in_sorted_order_with_exact_bytes(tmp_path):
    for name, data in {"b.txt": b"B\r\n", "a/z.md": b"# Z\n", ".git/x.txt": b"no", "note.rst": b"no"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert list(stream_documents([tmp_path])) == [Document("# Z\n", "a/z.md"), Document("B\r\n", "b.txt")]
    (tmp_path / "b.txt").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"b\.txt is not UTF-8 at byte 2"):
        list(stream_documents([tmp_path]))


def test_inputs_that_are_nothing_are_refused(tmp_path):
    with pytest.raises(DataError, match="no file or folder"):
        list(stream_documents([tmp_path / "absent"]))
    with pytest.raises(DataError, match=r"holds no documents; expected .*\.jsonl\.zst"):
        input_files(tmp_path)
    (tmp_path / "table.csv").write_text("a")
    with pytest.raises(DataError, match=r"table\.csv is no known kind of text"):
        list(stream_documents([tmp_path / "table.csv"]))
    (tmp_path / "README.md").write_text("a")
    (tmp_path / "x.jsonl").write_text("")
    with pytest.raises(DataError, match=r"holds texts .* and JSON lines .*; name the files"):
        input_files(tmp_path)


def test_a_file_without_lines_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "MAX_DOCUMENT_BYTES", 100)
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "ok"}\n' + b" " * 101)
    with pytest.raises(DataError, match=r"x\.jsonl:2 is longer than 100 B"):
        list(stream_documents([tmp_path / "x.jsonl"]))


def test_real_corpus_ids_are_hashes_of_the_texts(corpus_dir):
    import hashlib
    from itertools import islice

    for document in islice(stream_documents([corpus_dir / "val.jsonl.xz"]), 20):
        assert document.id == hashlib.sha256(document.text.encode()).hexdigest()[:16]
        assert document.source
        assert document.license
