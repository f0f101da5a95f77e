"""Preparation: layout on disk, exact bytes, split rules, overlap, independence of the workers, and interruption."""

import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.core.errors import DataError
from underpar.data.corpora import Document, stream_documents
from underpar.data.manifest import Manifest
from underpar.data.prepare import FirstDocuments, SeparateFiles, prepare
from underpar.data.shards import open_shard, shard_files, sidecar_files
from underpar.data.staging import staged_folder, staging_path
from underpar.data.tokenizer_base import ByteTokenizer
from underpar.data.tokenizers import SentencePiece, load_tokenizer
from underpar.data.validation import load_validation

ADVERSARIAL = [
    "\0\x01\x7f",
    "  leading",
    "trailing  \n\n",
    "\u2581\u2581",
    "\U0001f469\u200d\U0001f52c",
    "\ue001A",
    "",
    "ﬁ Å",
]


def write_lines(path, texts):
    path.write_text("".join(Document(t, id=str(i)).to_json() + "\n" for i, t in enumerate(texts)), "utf-8", newline="")
    return path


def read_split(folder, split):
    return np.concatenate([open_shard(p) for p in shard_files(folder, split)])


def documents_of(tokens, tokenizer):
    """Decoded documents of a stream."""
    starts = np.flatnonzero(tokens == tokenizer.bos_id)
    return [tokenizer.decode(part[1:]) for part in np.split(tokens, starts)[1:]]


def test_every_document_is_bos_and_its_tokens_in_order(tmp_path):
    train = write_lines(tmp_path / "train.jsonl", ["one", *ADVERSARIAL, "two"])
    val = write_lines(tmp_path / "val.jsonl", ["three", *(t + "!" for t in ADVERSARIAL)])
    tokenizer = ByteTokenizer()
    manifest = prepare([train], tokenizer, tmp_path / "out", val=SeparateFiles((val,)), shard_tokens=10, workers=1)
    for split, path in (("train", train), ("val", val)):
        texts = [d.text for d in stream_documents([path])]
        tokens = read_split(tmp_path / "out", split)
        assert documents_of(tokens, tokenizer) == texts
        counts = manifest.splits[split]
        size = sum(len(t.encode()) for t in texts)
        assert (counts.documents, counts.tokens, counts.text_bytes) == (len(texts), len(tokens), size)
        assert len(tokens) == size + len(texts)  # BOS, and no EOS
        assert all(len(open_shard(p)) == 10 for p in shard_files(tmp_path / "out", split)[:-1])
    stream = load_validation(tmp_path / "out")
    assert stream.text_bytes == manifest.splits["val"].text_bytes
    assert len(stream.document_starts) == 9
    assert not stream.byte_counts[stream.document_starts].any()
    assert list(stream_documents([tmp_path / "out/val.jsonl.zst"])) == list(stream_documents([val]))
    assert Manifest.load(tmp_path / "out", check_hashes=True) == manifest


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=6, unique=True))
@settings(max_examples=25, deadline=None)
def test_validation_bytes_are_those_of_the_text_for_any_unicode(tmp_path_factory, small_bpe, texts):
    folder = tmp_path_factory.mktemp("any")
    prepare(
        [write_lines(folder / "x.jsonl", texts)],
        small_bpe,
        folder / "out",
        val=FirstDocuments(len(texts) - 1),
        workers=1,
    )
    stream = load_validation(folder / "out")
    bounds = [*stream.document_starts, len(stream.tokens)]
    found = [int(stream.byte_counts[a:b].sum()) for a, b in pairwise(bounds)]
    assert found == [len(t.encode()) for t in texts[:-1]]
    assert documents_of(stream.tokens, small_bpe) == texts[:-1]


@pytest.fixture(scope="module")
def small_bpe():
    return SentencePiece(vocab_size=300).build(["a few words, of some 10 kinds; and more of them. " * 30])


@pytest.fixture
def words(tmp_path):
    """Documents enough for several batches."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 5000, size=20_000)) for _ in range(20)]
    return write_lines(tmp_path / "words.jsonl", texts)


def test_output_is_the_same_for_any_number_of_workers(tmp_path, words, small_bpe):
    for workers in (1, 3):
        prepare([words], small_bpe, tmp_path / str(workers), val=FirstDocuments(4), workers=workers)
    names = sorted(p.name for p in (tmp_path / "1").iterdir())
    assert sorted(p.name for p in (tmp_path / "3").iterdir()) == names
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_first_documents_rule(tmp_path):
    source = write_lines(tmp_path / "x.jsonl", [f"text {i}" for i in range(10)])
    manifest = prepare([source], ByteTokenizer(), tmp_path / "out", val=FirstDocuments(3), workers=1)
    assert documents_of(read_split(tmp_path / "out", "val"), ByteTokenizer()) == ["text 0", "text 1", "text 2"]
    assert documents_of(read_split(tmp_path / "out", "train"), ByteTokenizer())[0] == "text 3"
    assert manifest.split_rule == {"rule": "first documents", "num_val_docs": 3}
    with pytest.raises(DataError, match="have 10 documents, the split rule takes the first 50,000"):
        prepare([source], ByteTokenizer(), tmp_path / "b", val=FirstDocuments(), workers=1)
    with pytest.raises(DataError, match="no training documents"):
        prepare([source], ByteTokenizer(), tmp_path / "b", val=FirstDocuments(10), workers=1)
    assert not (tmp_path / "b").exists()


def test_a_validation_set_alone(tmp_path):
    val = write_lines(tmp_path / "val.jsonl", ["abc"])
    manifest = prepare([], ByteTokenizer(), tmp_path / "out", val=SeparateFiles((val,)), workers=1)
    assert manifest.splits["train"].documents == 0
    assert load_validation(tmp_path / "out").text_bytes == 3


def test_overlapping_splits_are_refused_or_dropped(tmp_path):
    train = write_lines(tmp_path / "train.jsonl", ["a", "same", "b", "same"])
    val = SeparateFiles((write_lines(tmp_path / "val.jsonl", ["v", "same"]),))
    with pytest.raises(DataError, match=r"train\.jsonl:2 has the same text as validation document .*val\.jsonl:2"):
        prepare([train], ByteTokenizer(), tmp_path / "out", val=val, workers=1)
    assert not (tmp_path / "out").exists()
    manifest = prepare([train], ByteTokenizer(), tmp_path / "out", val=val, workers=1, drop_overlap=True)
    assert documents_of(read_split(tmp_path / "out", "train"), ByteTokenizer()) == ["a", "b"]
    assert manifest.overlap_documents_dropped == 2
    with pytest.raises(DataError, match=r"train\.jsonl is both training and validation text"):
        prepare([train], ByteTokenizer(), tmp_path / "c", val=SeparateFiles((train,)), workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_document_is_named_and_nothing_is_left(tmp_path, workers):
    source = tmp_path / "x.jsonl"
    source.write_text('{"text": "fine"}\n{"text": "\\ud800"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2: character 0 is the lone surrogate U\+D800"):
        prepare([source], ByteTokenizer(), tmp_path / "out", val=FirstDocuments(1), workers=workers)
    assert list(tmp_path.iterdir()) == [source]


def test_a_dead_worker_is_reported(tmp_path, words, monkeypatch):
    from underpar.data import workers as module

    def start_dying(folder):
        code = "import sys, os; sys.stdin.buffer.read(100); os._exit(9)"
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(module, "_start_worker", start_dying)
    with pytest.raises(DataError, match="an encoding process ended with status 9"):
        prepare([words], ByteTokenizer(), tmp_path / "out", val=FirstDocuments(1), workers=2)
    assert not (tmp_path / "out").exists()


def test_existing_folders_are_kept_unless_told(tmp_path):
    source = write_lines(tmp_path / "x.jsonl", ["a", "b"])
    first = prepare([source], ByteTokenizer(), tmp_path / "out", val=FirstDocuments(1), workers=1)
    write_lines(source, ["a", "b", "c"])
    with pytest.raises(DataError, match=r"exists already.*--overwrite"):
        prepare([source], ByteTokenizer(), tmp_path / "out", val=FirstDocuments(1), workers=1)
    assert Manifest.load(tmp_path / "out") == first
    prepare([source], ByteTokenizer(), tmp_path / "out", val=FirstDocuments(1), workers=1, overwrite=True)
    assert Manifest.load(tmp_path / "out").splits["train"].documents == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.jsonl"]


PREPARE = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born deaf to it
from underpar.data.prepare import FirstDocuments, Progress, prepare
from underpar.data.tokenizer_base import ByteTokenizer

class StandStill(Progress):
    def advance(self, split, documents, tokens, text_bytes):
        if split == "train":
            print("writing", flush=True)
            time.sleep(60)

prepare([sys.argv[1]], ByteTokenizer(), sys.argv[2], val=FirstDocuments(2), workers=2, progress=StandStill())
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts child processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_preparation_leaves_no_set_and_no_process(tmp_path, how):
    source, out = write_lines(tmp_path / "x.jsonl", [f"{i} word " * 150_000 for i in range(8)]), tmp_path / "out"
    command = [sys.executable, "-c", PREPARE, str(source), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"writing\n"
        assert (staging_path(out) / "fineweb_train_000000.bin").stat().st_size > 1024
        children = child_pids(process.pid)
        assert len(children) == 2
        process.send_signal(how)
        process.wait(timeout=30)
    assert process.returncode != 0
    assert not out.exists()
    assert staging_path(out).exists() == (how != signal.SIGINT)
    for folder in (out, staging_path(out)):
        with pytest.raises(DataError, match="holds no prepared tokens"):
            load_validation(folder)
    wait_until_gone(children)
    small = write_lines(tmp_path / "small.jsonl", ["a", "b", "c"])
    prepare([small], ByteTokenizer(), out, val=FirstDocuments(2), workers=1)
    assert documents_of(read_split(out, "train"), ByteTokenizer()) == ["c"]
    assert not staging_path(out).exists()


def child_pids(pid):
    """Children of every thread of a process."""
    return sorted({int(p) for path in Path(f"/proc/{pid}/task").glob("*/children") for p in path.read_text().split()})


def wait_until_gone(pids):
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, f"workers {pids} outlive their parent"
        time.sleep(0.02)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_processes_cannot_make_the_same_folder(tmp_path):
    with staged_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("first")
        with pytest.raises(DataError, match="another process is making"), staged_folder(tmp_path / "out"):
            pass
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x"]


@contextmanager
def tiny_disk():
    """No file may pass 4,000 bytes. Only around the call itself: the test runner writes its own log between the phases."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(tmp_path):
    source = tmp_path / "many"
    source.mkdir()
    for index in range(4):
        (source / f"{index}.txt").write_text(f"{index}" * 3_000)
    with pytest.raises(DataError, match=r"cannot make .*out: .*File too large"), tiny_disk():
        prepare([source], ByteTokenizer(), tmp_path / "out", val=FirstDocuments(1), workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["many"]


def test_no_workers_is_a_mistake_not_a_default(tmp_path):
    source = write_lines(tmp_path / "x.jsonl", ["a", "b"])
    with pytest.raises(DataError, match="workers = 0 is out of range"):
        prepare([source], ByteTokenizer(), tmp_path / "out", val=FirstDocuments(1), workers=0)


def test_published_caseops_model_on_real_text(tmp_path, corpus_dir):
    """The known counts of the first 421 validation documents: 3,014,435 bytes, 929,528 tokens with one BOS each."""
    model = corpus_dir.parent / "tokenizers/fineweb_8192_bpe_lossless_caps_caseops_v1_reserved.model"
    if not model.is_file():
        pytest.skip(f"no published model at {model}")
    texts = [d.text for d in islice(stream_documents([corpus_dir / "val.jsonl.xz"]), 421)]
    val = write_lines(tmp_path / "val.jsonl", texts)
    manifest = prepare([], load_tokenizer(model), tmp_path / "out", val=SeparateFiles((val,)))
    stream = load_validation(tmp_path / "out")
    assert (manifest.splits["val"].tokens, manifest.splits["val"].text_bytes) == (929_528, 3_014_435)
    assert (len(stream.tokens), stream.text_bytes, len(stream.document_starts)) == (929_528, 3_014_435, 421)
    assert sum(int(open_shard(p).sum(dtype=np.int64)) for p in sidecar_files(tmp_path / "out")) == 3_014_435
