"""Fetching an export from a folder of the published layout: checks, resuming, extending, and one-line errors."""

import json

import numpy as np
import pytest

from underpar.core.errors import DataError
from underpar.data import fineweb_sources
from underpar.data.fineweb import fetch_fineweb
from underpar.data.fineweb_sources import HubDataset, LocalFolder, find_source
from underpar.data.manifest import Manifest
from underpar.data.sentencepiece_train import train_bpe
from underpar.data.shards import open_shard, shard_files, write_shard
from underpar.data.staging import staging_path
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import load_validation

BOS = 1
TEXTS = ["the cat sat on the mat. " * 20, "a second text, of dogs & cats. " * 9, "numbers 12345 and café. " * 15]


def write_export(root, prefix="datasets/", **stats):
    """An export of byte260 and of a trained vocabulary, 3 training shards each, as the published one is laid out."""
    base = root / prefix
    (base / "tokenizers").mkdir(parents=True)
    model = train_bpe(TEXTS, vocab_size=290, train_bytes=10_000)
    (base / "tokenizers/fineweb_290_bpe.model").write_bytes(model)
    names = {"sp290": load_tokenizer(base / "tokenizers/fineweb_290_bpe.model"), "byte260": None}
    for name, tokenizer in names.items():
        folder = base / f"datasets/fineweb10B_{name}"
        folder.mkdir(parents=True)
        for index, text in enumerate([*TEXTS, TEXTS[0]]):
            ids = (
                np.frombuffer(text.encode(), np.uint8) + np.uint16(4)
                if tokenizer is None
                else tokenizer.encode_ids(text)
            )
            split = "val" if index == 3 else "train"
            tokens = np.concatenate([[BOS], ids]).astype(np.uint16)
            write_shard(folder / f"fineweb_{split}_{0 if index == 3 else index:06d}.bin", tokens)
    counts = {"files_train": 3, "files_val": 1, "docs_val": 1, **stats}
    manifest = {
        "datasets": [
            {"name": "fineweb10B_sp290", "tokenizer_name": "sp_bpe_290", "stats": counts},
            {"name": "fineweb10B_byte260", "tokenizer_name": "pure_byte_260", "stats": counts},
        ],
        "tokenizers": [
            {"name": "sp_bpe_290", "model_path": "tokenizers/fineweb_290_bpe.model"},
            {"name": "pure_byte_260", "path": "tokenizers/fineweb_pure_byte_260.json"},
        ],
    }
    (base / "manifest.json").write_text(json.dumps(manifest))
    return LocalFolder(root)


@pytest.mark.parametrize("prefix", ["datasets/", ""])
def test_fetches_all_validation_and_the_first_training_shards(tmp_path, prefix):
    source = write_export(tmp_path / "export", prefix)
    manifest = fetch_fineweb("sp290", tmp_path / "out", train_shards=2, source=source)
    assert Manifest.load(tmp_path / "out", check_hashes=True) == manifest
    assert [p.name for p in shard_files(tmp_path / "out", "train")] == [f"fineweb_train_{i:06d}.bin" for i in range(2)]
    assert manifest.byte_counts == "lookup"
    stream = load_validation(tmp_path / "out")
    assert stream.document_starts.tolist() == [0]
    assert stream.text_bytes == len(TEXTS[0].encode())
    assert load_tokenizer(tmp_path / "out").decode(stream.tokens) == TEXTS[0]


def test_byte_export_has_no_model_file(tmp_path):
    manifest = fetch_fineweb("byte260", tmp_path / "out", train_shards=0, source=write_export(tmp_path / "export"))
    assert manifest.tokenizer["name"] == "byte260"
    assert load_validation(tmp_path / "out").text_bytes == len(TEXTS[0].encode())


def test_a_caseops_export_brings_its_sidecars(tmp_path):
    from underpar.data.caseops import MARKERS, encode_caseops

    export = write_export(tmp_path / "export")
    base = tmp_path / "export/datasets"
    texts = ["The Cat SAT on the mat. " * 20]
    model = train_bpe(map(encode_caseops, texts), vocab_size=290, train_bytes=10_000, markers=MARKERS)
    (base / "tokenizers/fineweb_290_bpe.model").write_bytes(model)
    tokenizer = load_tokenizer(base / "tokenizers/fineweb_290_bpe.model")
    ids, counts = tokenizer.encode(texts[0])
    folder = base / "datasets/fineweb10B_sp290"
    write_shard(folder / "fineweb_val_000000.bin", np.concatenate([[BOS], ids]).astype(np.uint16))
    with pytest.raises(DataError, match=r"lacks datasets/datasets/fineweb10B_sp290/fineweb_val_bytes_000000\.bin"):
        fetch_fineweb("sp290", tmp_path / "out", train_shards=0, source=export)
    assert not (tmp_path / "out").exists()
    write_shard(folder / "fineweb_val_bytes_000000.bin", np.concatenate([[0], counts]).astype(np.uint16))
    assert fetch_fineweb("sp290", tmp_path / "out", train_shards=0, source=export).byte_counts == "sidecar"
    assert load_validation(tmp_path / "out").text_bytes == len(texts[0])


class Recording(LocalFolder):
    """Notes what is fetched, and stops at one file as a dropped connection would."""

    def watch(self, stop_at=None):
        object.__setattr__(self, "fetched", [])
        object.__setattr__(self, "stop_at", stop_at)
        return self

    def fetch(self, relative, target):
        if target.name == self.stop_at:
            raise KeyboardInterrupt
        self.fetched.append(target.name)
        super().fetch(relative, target)


def test_an_interrupted_fetch_leaves_no_set_and_goes_on_where_it_stopped(tmp_path):
    source, out = Recording(write_export(tmp_path / "export").root), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fetch_fineweb("sp290", out, train_shards=3, source=source.watch(stop_at="fineweb_train_000001.bin"))
    assert not out.exists()
    with pytest.raises(DataError, match=r"no manifest\.json"):
        Manifest.load(staging_path(out))
    assert "fineweb_train_000000.bin" in source.fetched
    fetch_fineweb("sp290", out, train_shards=3, source=source.watch())
    again = {name for name in source.fetched if name.startswith("fineweb")}
    assert again == {"fineweb_train_000001.bin", "fineweb_train_000002.bin"}
    assert len(shard_files(out, "train")) == 3
    assert not staging_path(out).exists()


def test_more_shards_extend_a_set_and_fewer_are_refused(tmp_path):
    source, out = write_export(tmp_path / "export"), tmp_path / "out"
    one = fetch_fineweb("sp290", out, train_shards=1, source=source)
    three = fetch_fineweb("sp290", out, train_shards=3, source=source)
    assert one.files.items() < three.files.items()
    assert not list(tmp_path.glob(".out*"))
    with pytest.raises(DataError, match="holds 3 training shards already, more than 2"):
        fetch_fineweb("sp290", out, train_shards=2, source=source)
    with pytest.raises(DataError, match="holds other data"):
        fetch_fineweb("byte260", out, train_shards=3, source=source)


@pytest.mark.parametrize(
    ("stats", "message"),
    [
        ({"docs_val": 2}, "docs_val = 1, its manifest says 2"),
        ({"tokens_val": 5}, "tokens_val = .*, its manifest says 5"),
        ({"docs_train": 4}, "docs_train = 3, its manifest says 4"),
        ({"files_val": "1"}, "gives files_val = '1'"),
        ({"files_train": 2}, "has 2 training shards, 3 were asked for"),
        ({"files_train": 4, "files_val": 2}, r"lacks datasets/datasets/fineweb10B_sp290/fineweb_val_000001\.bin"),
    ],
)
def test_counts_that_do_not_hold_are_refused(tmp_path, stats, message):
    source = write_export(tmp_path / "export", **stats)
    with pytest.raises(DataError, match=message):
        fetch_fineweb("sp290", tmp_path / "out", train_shards=3, source=source)
    assert not (tmp_path / "out").exists()


def test_damaged_shards_are_refused_and_fetched_again(tmp_path):
    source, out = write_export(tmp_path / "export"), tmp_path / "out"
    path = source.root / "datasets/datasets/fineweb10B_sp290/fineweb_train_000000.bin"
    good = path.read_bytes()
    for bad, message in [
        (good[:-2], "its header says"),
        (good[:-2] + b"\xff\xff", "goes up to 65535"),
        (good[:1024] + b"\x07\x00" + good[1026:], "begins with token 7"),
    ]:
        path.unlink()
        path.write_bytes(bad)
        with pytest.raises(DataError, match=message):
            fetch_fineweb("sp290", out, train_shards=1, source=source)
        assert not out.exists()
    path.write_bytes(good)
    fetch_fineweb("sp290", out, train_shards=1, source=source)
    assert open_shard(out / path.name)[0] == BOS


def test_unknown_exports_and_folders_are_named(tmp_path):
    source = write_export(tmp_path / "export")
    with pytest.raises(DataError, match="no export 'fineweb10B_sp29'; did you mean 'fineweb10B_sp290'"):
        fetch_fineweb("sp29", tmp_path / "out", train_shards=0, source=source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no manifest\.json"):
        fetch_fineweb("sp290", tmp_path / "out", train_shards=0, source=LocalFolder(tmp_path / "empty"))
    with pytest.raises(DataError, match="train_shards = -1"):
        fetch_fineweb("sp290", tmp_path / "out", train_shards=-1, source=source)


def test_a_manifest_cannot_reach_outside_its_export(tmp_path):
    source = write_export(tmp_path / "export")
    path = source.root / "datasets/manifest.json"
    path.write_text(path.read_text().replace("tokenizers/fineweb_290", "../../secret"))
    with pytest.raises(DataError, match="no usable model_path"):
        fetch_fineweb("sp290", tmp_path / "out", train_shards=0, source=source)


def test_sources_by_name(tmp_path):
    assert find_source("sp1024") == HubDataset("willdepueoai/parameter-golf")
    assert find_source("caseops8192") == HubDataset("romeerp/parameter-golf-caseops-v1")
    assert find_source("sp1024", "a/b@v2") == HubDataset("a/b", "v2")
    assert find_source("sp1024", str(tmp_path)) == LocalFolder(tmp_path)
    with pytest.raises(DataError, match="neither a folder nor a repository"):
        find_source("sp1024", "nowhere")


class FakeHub:
    """huggingface-hub as far as it is used, over a folder."""

    def __init__(self, root):
        self.root = root

    def file_exists(self, repo, relative, *, repo_type, revision):
        assert (repo, repo_type, revision) == ("someone/export", "dataset", None)
        return (self.root / relative).is_file()

    def hf_hub_download(self, repo, relative, *, local_dir, repo_type, revision):
        from pathlib import Path

        target = Path(local_dir) / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((self.root / relative).read_bytes())
        return str(target)


def test_the_hub_is_asked_for_the_same_files(tmp_path, monkeypatch):
    root = write_export(tmp_path / "export").root
    monkeypatch.setattr(fineweb_sources, "_import_hub", lambda: FakeHub(root))
    fetch_fineweb("sp290", tmp_path / "hub", train_shards=2, source=HubDataset("someone/export"))
    fetch_fineweb("sp290", tmp_path / "local", train_shards=2, source=LocalFolder(root))
    names = sorted(p.name for p in (tmp_path / "hub").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "local").iterdir())
    for name in names:
        if name != "manifest.json":
            assert (tmp_path / "hub" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_no_network_is_one_line(tmp_path, monkeypatch):
    class Offline(FakeHub):
        def file_exists(self, *args, **kwargs):
            raise ConnectionError("Name or service not known\nand a long tail")

    monkeypatch.setattr(fineweb_sources, "_import_hub", lambda: Offline(tmp_path))
    with pytest.raises(DataError, match="Name or service not known; without a network, give --source DIR") as caught:
        fetch_fineweb("sp1024", tmp_path / "out", train_shards=1, source=find_source("sp1024"))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_without_huggingface_hub_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install 'underpar\[data\]'"):
        fetch_fineweb("sp1024", tmp_path / "out", train_shards=1, source=find_source("sp1024"))
