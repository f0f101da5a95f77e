"""The published FineWeb exports, fetched by their manifest, checked, and made a prepared folder like any other.

An export has this layout, under 'datasets/' or at the top of a dataset repository or local folder:

    manifest.json                                        its datasets and tokenizers, with counts
    datasets/fineweb10B_sp1024/fineweb_val_000000.bin    all validation shards are always fetched
    datasets/fineweb10B_sp1024/fineweb_train_000000.bin  the first N of the frozen order
    tokenizers/fineweb_1024_bpe.model

The GPT-2 export of the speedrun has no manifest and no folders: one validation shard, and training shards counted from 1.

Source: the data manifest of openai/parameter-golf, and the CaseOps export of its PR #1729; kjj0/fineweb10B-gpt2.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from underpar.core.errors import DataError, suggest
from underpar.data.fineweb_sources import HUB_FOLDER, LocalFolder, Source
from underpar.data.gpt2 import Gpt2Tokenizer
from underpar.data.manifest import MANIFEST_FILE, Manifest, SplitCounts, file_entry
from underpar.data.shards import open_shard, read_count, shard_files, shard_name, sidecar_name
from underpar.data.staging import staged_folder
from underpar.data.tokenizer_base import IDENTITY_FILE, MODEL_FILE, ByteTokenizer, Tokenizer
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import stream_byte_counts

GPT2_TRAIN_SHARDS = 103
EXPORT_NAMES = {"caseops8192": "sp8192_lossless_caps_caseops_v1_reserved"}
"""Our short name -> the name in the export, where they differ."""


def fetch_fineweb(tokenizer: str, out_dir: str | Path, *, train_shards: int, source: Source) -> Manifest:
    """Fetch an export into `out_dir`: all validation shards and the first `train_shards` training shards.

    An interrupted fetch goes on where it stopped when called again, and a folder with fewer shards of the same export is
    extended; until everything is there and checked, `out_dir` does not exist or stays as it was.
    Args:
        tokenizer: 'sp1024', 'byte260', 'caseops8192', or the name of a dataset in the export's manifest.
    Raises:
        DataError: no network, no huggingface-hub, no such export, too few shards, a file that is not what its header or the
            export's manifest says.
    Cost: 200 MB per training shard of 100,000,000 tokens.
    """
    out_dir = Path(out_dir)
    if train_shards < 0:
        raise DataError(f"train_shards = {train_shards} is out of range: 0 fetches the validation split alone")
    origin = {"export": EXPORT_NAMES.get(tokenizer, tokenizer), "source": source.name}
    present = _present(out_dir, origin, train_shards)
    with TemporaryDirectory() as scratch:
        export = _Export.find(source, Path(scratch), origin["export"])
        model = export.fetch_tokenizer(Path(scratch))
    names = export.file_names(model, train_shards)
    with staged_folder(out_dir, overwrite=present is not None, keep_partial=True) as folder:
        _forget_other(folder, origin)
        if present is not None:
            _carry_over(out_dir, folder, present)
        model.save(folder)
        export.fetch_shards(folder, names)
        manifest = export.check(folder, model, names, origin)
        _tidy(folder, manifest)
        manifest.write(folder)
        Manifest.load(folder)
    return manifest


# ------------------------------------------------------------------------------------------------- what is there already


def _present(out_dir: Path, origin: dict[str, str], train_shards: int) -> Manifest | None:
    """The manifest of a folder that can be extended; None when there is nothing."""
    if not (out_dir / MANIFEST_FILE).is_file():
        return None
    present = Manifest.load(out_dir)
    if present.origin != origin:
        raise DataError(f"{out_dir} holds other data ({present.tokenizer['name']}); choose another folder")
    found = len(shard_files(out_dir, "train"))
    if found > train_shards:
        raise DataError(
            f"{out_dir} holds {found} training shards already, more than {train_shards}; choose another folder"
        )
    return present


def _carry_over(out_dir: Path, folder: Path, present: Manifest) -> None:
    for name in present.files:
        LocalFolder(out_dir).fetch(name, folder / name)


def _forget_other(folder: Path, origin: dict[str, str]) -> None:
    """Empty what an interrupted fetch of another export left here."""
    note = folder / ".origin.json"
    if not note.is_file() or json.loads(note.read_text("utf-8")) != origin:
        for path in folder.glob("fineweb_*"):
            path.unlink()
        shutil.rmtree(folder / HUB_FOLDER, ignore_errors=True)
    note.write_text(json.dumps(origin), encoding="utf-8")


def _tidy(folder: Path, manifest: Manifest) -> None:
    shutil.rmtree(folder / HUB_FOLDER, ignore_errors=True)
    (folder / ".origin.json").unlink()
    for path in folder.glob("fineweb_*"):
        if path.name not in manifest.files:
            path.unlink()


# ------------------------------------------------------------------------------------------------- the export


@dataclass(frozen=True)
class _Export:
    """One dataset of an export's manifest."""

    source: Source
    prefix: str
    name: str
    stats: dict[str, Any]
    tokenizer: dict[str, Any]
    first_train: ClassVar[int] = 0
    """Number of the first training shard."""

    @classmethod
    def find(cls, source: Source, scratch: Path, wanted: str) -> "_Export":
        """Read the manifest of the export and choose the dataset."""
        prefix = next((p for p in ("datasets/", "") if source.has(f"{p}manifest.json")), None)
        if prefix is None and wanted == Gpt2Tokenizer.name and source.has(shard_name("val", 0)):
            return _FlatExport(source, "", wanted, {"files_val": 1, "files_train": GPT2_TRAIN_SHARDS}, {})
        if prefix is None:
            raise DataError(f"{source.name} has no manifest.json; is it an export of the 16 MB game?")
        path = scratch / "manifest.json"
        source.fetch(f"{prefix}manifest.json", path)
        try:
            data = json.loads(path.read_text("utf-8"))
            datasets = {str(entry["name"]): entry for entry in data["datasets"]}
            tokenizers = {str(entry["name"]): entry for entry in data["tokenizers"]}
            name = wanted if wanted in datasets else f"fineweb10B_{wanted}"
            if name not in datasets:
                raise DataError(f"{source.name} has no export '{name}'; {suggest(name, datasets)}")
            entry = datasets[name]
            return cls(source, prefix, name, dict(entry["stats"]), tokenizers[entry["tokenizer_name"]])
        except KeyError as problem:
            raise DataError(
                f"the manifest of {source.name} is not that of an export: it has no {problem}; name another with --source"
            ) from None
        except (TypeError, ValueError) as problem:
            raise DataError(
                f"the manifest of {source.name} cannot be used: {problem}; name another with --source"
            ) from None

    def count(self, key: str) -> int:
        value = self.stats.get(key)
        if type(value) is not int or value < 0:
            raise DataError(f"the manifest of {self.source.name} gives {key} = {value!r} for {self.name}")
        return value

    def fetch_tokenizer(self, scratch: Path) -> Tokenizer:
        """The tokenizer that the export names."""
        relative = self.tokenizer.get("model_path")
        if relative is None and self.name.endswith(ByteTokenizer.name):
            return ByteTokenizer()
        if (
            not isinstance(relative, str)
            or PurePosixPath(relative).is_absolute()
            or ".." in PurePosixPath(relative).parts
        ):
            raise DataError(
                f"the manifest of {self.source.name} gives no usable model_path for {self.name}: {relative!r}"
            )
        path = scratch / "tokenizer.model"
        self.source.fetch(self.prefix + relative, path)
        return load_tokenizer(path)

    def file_names(self, tokenizer: Tokenizer, train_shards: int) -> list[str]:
        """The shards to have. A CaseOps export has byte sidecars."""
        if train_shards > self.count("files_train"):
            raise DataError(
                f"{self.name} has {self.count('files_train')} training shards, {train_shards} were asked for"
            )
        val, train = range(self.count("files_val")), range(self.first_train, self.first_train + train_shards)
        sidecars = [sidecar_name(i) for i in val] if tokenizer.kind == "caseops" else []
        return [shard_name("val", i) for i in val] + sidecars + [shard_name("train", i) for i in train]

    def place(self, name: str) -> str:
        """Where a shard lies in the source."""
        return f"{self.prefix}datasets/{self.name}/{name}"

    def fetch_shards(self, folder: Path, names: Sequence[str]) -> None:
        """Every shard that is not there whole."""
        for name in names:
            if not _is_whole(folder / name):
                self.source.fetch(self.place(name), folder / name)
                read_count(folder / name)

    def check(self, folder: Path, tokenizer: Tokenizer, names: Sequence[str], origin: dict[str, str]) -> Manifest:
        """Read every shard once. Raises DataError when ids, documents or counts are not what the export says."""
        train_paths, val_paths = ([p for p in shard_files(folder, s) if p.name in names] for s in ("train", "val"))
        train, val = _scan(train_paths, tokenizer), _scan(val_paths, tokenizer)
        claims = {"tokens_val": val.tokens, "docs_val": val.documents}
        if len(train_paths) == self.count("files_train"):
            claims |= {"tokens_train": train.tokens, "docs_train": train.documents}
        for key, found in claims.items():
            if key in self.stats and self.count(key) != found:
                raise DataError(f"{self.name} has {key} = {found:,}, its manifest says {self.count(key):,}")
        counts = stream_byte_counts(folder, np.concatenate([open_shard(path) for path in val_paths]), tokenizer)
        return Manifest(
            tokenizer=tokenizer.identity,
            bos_id=tokenizer.bos_id,
            splits={"train": train, "val": replace(val, text_bytes=int(counts.sum(dtype=np.int64)))},
            split_rule={"rule": "published export", "num_val_docs": val.documents},
            byte_counts="sidecar" if tokenizer.kind == "caseops" else "lookup",
            origin=dict(origin),
            overlap_documents_dropped=0,
            files={name: file_entry(folder / name) for name in sorted([MODEL_FILE, IDENTITY_FILE, *names])},
        )


@dataclass(frozen=True)
class _FlatExport(_Export):
    """The GPT-2 export."""

    first_train: ClassVar[int] = 1

    def fetch_tokenizer(self, scratch: Path) -> Tokenizer:
        return Gpt2Tokenizer()

    def place(self, name: str) -> str:
        return name


def _is_whole(path: Path) -> bool:
    try:
        return read_count(path) > 0
    except DataError:
        return False


def _scan(paths: Sequence[Path], tokenizer: Tokenizer) -> SplitCounts:
    """Documents (BOS) and tokens of a split. A shard that cannot be right is removed, so that it is fetched again."""
    documents = tokens = 0
    for index, path in enumerate(paths):
        shard = open_shard(path)
        first, largest = int(shard[0]), int(shard.max())
        if largest >= tokenizer.vocab_size or (index == 0 and first != tokenizer.bos_id):
            path.unlink()
            raise DataError(
                f"{path.name} begins with token {first} and goes up to {largest}, but its tokenizer has "
                f"{tokenizer.vocab_size:,} ids and BOS {tokenizer.bos_id}; it was removed, fetch again"
            )
        documents += int(np.count_nonzero(shard == tokenizer.bos_id))
        tokens += len(shard)
    return SplitCounts(documents, tokens, None)
