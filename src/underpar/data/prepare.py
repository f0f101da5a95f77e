"""Documents to shards: every document as BOS and its tokens, validation apart from training, bytes accounted for.

A prepared folder holds fineweb_{train,val}_*.bin, the byte sidecars of the validation shards, the raw validation text
(val.jsonl.zst, so that anyone can tokenise it again), the tokenizer, and manifest.json. It appears whole or not at all.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import zstandard

from underpar.core.errors import DataError
from underpar.data.corpora import ReadMeter, Record, input_files, stream_records
from underpar.data.encoding import EncodedBatch
from underpar.data.manifest import MANIFEST_FILE, VAL_TEXT_FILE, Manifest, SplitCounts, file_entry
from underpar.data.shards import SHARD_TOKENS, ShardWriter, Split
from underpar.data.staging import staged_folder
from underpar.data.tokenizer_base import Tokenizer
from underpar.data.workers import Encoder, available_cores

PUBLISHED_VAL_DOCS = 50_000
"""Validation documents of the published FineWeb export."""

_VAL_TEXT_LEVEL = 9


class Progress:
    """Hears of every batch that has been written. This one says nothing; `data.progress` has one that shows it."""

    def begin(self, total_bytes: int, meter: ReadMeter) -> None:
        """The inputs have `total_bytes` of files; `meter` counts how many of them have been read."""

    def advance(self, split: Split, documents: int, tokens: int, text_bytes: int) -> None:
        """A batch is in the shards."""


# ------------------------------------------------------------------------------------------------- split rules


class SplitRule(Protocol):
    """Which documents are validation. The first stream is consumed whole before the second is begun."""

    def divide(self, inputs: Sequence[Path], meter: ReadMeter) -> tuple[Iterator[Record], Iterator[Record]]:
        """Validation and training records."""

    def describe(self) -> dict[str, Any]:
        """JSON for the manifest."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files and folders that hold nothing but validation text."""

    def check(self, val_documents: int) -> None:
        """Raise DataError when the documents found are not what the rule asks for."""


@dataclass(frozen=True)
class SeparateFiles:
    """Validation documents come from files of their own, training documents from the inputs."""

    paths: tuple[Path, ...]

    def divide(self, inputs: Sequence[Path], meter: ReadMeter) -> tuple[Iterator[Record], Iterator[Record]]:
        shared = {p.resolve() for path in self.paths for p in input_files(path)}
        for path in (p for source in inputs for p in input_files(source)):
            if path.resolve() in shared:
                raise DataError(f"{path} is both training and validation text; give each file once")
        return stream_records(self.paths, meter), stream_records(inputs, meter)

    def describe(self) -> dict[str, Any]:
        return {"rule": "separate files"}

    def check(self, val_documents: int) -> None:
        if not val_documents:
            raise DataError(f"no validation documents in {', '.join(map(str, self.paths))}")


@dataclass(frozen=True)
class FirstDocuments:
    """The first `count` documents of the inputs are validation, all later ones training: the published rule."""

    count: int = PUBLISHED_VAL_DOCS
    paths: tuple[Path, ...] = field(default=(), init=False)

    def divide(self, inputs: Sequence[Path], meter: ReadMeter) -> tuple[Iterator[Record], Iterator[Record]]:
        if self.count < 1:
            raise DataError(f"num_val_docs = {self.count} is out of range: at least 1 document must be validation")
        records = stream_records(inputs, meter)
        return islice(records, self.count), records

    def describe(self) -> dict[str, Any]:
        return {"rule": "first documents", "num_val_docs": self.count}

    def check(self, val_documents: int) -> None:
        if val_documents < self.count:
            raise DataError(
                f"the inputs have {val_documents:,} documents, the split rule takes the first {self.count:,} for validation; "
                "set --val-docs or give --val files"
            )


# ------------------------------------------------------------------------------------------------- preparation


def prepare(
    inputs: Sequence[str | Path],
    tokenizer: Tokenizer,
    out_dir: str | Path,
    *,
    val: SplitRule,
    shard_tokens: int = SHARD_TOKENS,
    workers: int | None = None,
    drop_overlap: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Tokenise documents into `out_dir`, which appears only when everything in it is complete and checked.

    Args:
        inputs: files and folders that `stream_documents` reads; may be empty when `val` names files of its own.
        val: which documents are validation. They are written in order and whole, whatever the number of workers.
        shard_tokens: tokens per shard, 100,000,000 in the field.
        workers: encoding processes; all cores when None. The output does not depend on it.
        drop_overlap: leave out training documents whose text is in the validation split; otherwise they are an error.
    Returns:
        The manifest that was written.
    Raises:
        DataError: nothing to read, a damaged input, bytes that do not add up, overlapping splits, a folder in use.
    Cost: 3 to 6 MB of text a second and core (benchmarks/prepare.py), some 60 MB of memory per process and 128 MB for an
        xz dictionary. Text is read once, and input files once more for their hashes.
    """
    sources = [Path(path) for path in inputs]
    progress, meter = progress or Progress(), ReadMeter()
    val_records, train_records = val.divide(sources, meter)
    files = [file for path in (*val.paths, *sources) for file in input_files(path)]
    progress.begin(sum(file.stat().st_size for file in files), meter)
    with staged_folder(out_dir, overwrite=overwrite) as folder:
        tokenizer.save(folder)
        with Encoder(tokenizer, folder, available_cores() if workers is None else workers) as encoder:
            job = _Job(folder, encoder, shard_tokens, progress)
            val_counts = job.write_val(val_records)
            val.check(val_counts.documents)
            train_counts = job.write_train(train_records, drop_overlap)
        if sources and not train_counts.documents:
            raise DataError(f"no training documents in {', '.join(map(str, sources))}")
        manifest = Manifest(
            tokenizer=tokenizer.identity,
            bos_id=tokenizer.bos_id,
            splits={"train": train_counts, "val": val_counts},
            split_rule=val.describe(),
            byte_counts="sidecar",
            origin={"train": [_origin(path) for path in sources], "val": [_origin(path) for path in val.paths]},
            overlap_documents_dropped=job.dropped,
            files={p.name: file_entry(p) for p in sorted(folder.iterdir()) if not p.name.startswith(".")},
        )
        assert MANIFEST_FILE not in manifest.files
        manifest.write(folder)
        Manifest.load(folder)
    return manifest


class _Job:
    """Writes the two splits of one folder."""

    def __init__(self, folder: Path, encoder: Encoder, shard_tokens: int, progress: Progress) -> None:
        self.folder, self.encoder, self.shard_tokens, self.progress = folder, encoder, shard_tokens, progress
        self.val_digests: dict[bytes, str] = {}
        self.dropped = 0

    def write_val(self, records: Iterable[Record]) -> SplitCounts:
        """Shards, sidecars and raw text. Raises DataError unless the sidecars sum to the text's UTF-8 length."""
        counts, counted_bytes = _Counts(), 0
        with (
            ShardWriter(self.folder, "fineweb_val_{:06d}.bin", self.shard_tokens) as shards,
            ShardWriter(self.folder, "fineweb_val_bytes_{:06d}.bin", self.shard_tokens) as sidecars,
            (self.folder / VAL_TEXT_FILE).open("wb") as raw,
            zstandard.ZstdCompressor(level=_VAL_TEXT_LEVEL).stream_writer(raw, closefd=False) as text,
        ):
            for batch, encoded in self.encoder.encode(records, with_text=True):
                shards.append(encoded.tokens)
                sidecars.append(encoded.byte_counts)
                text.write(encoded.lines)
                self.val_digests.update(zip(encoded.digests, (r.where for r in batch), strict=True))
                counted_bytes += int(encoded.byte_counts.sum(dtype="int64"))
                counts.add(encoded, "val", self.progress)
        if counted_bytes != counts.text_bytes:
            raise DataError(
                f"the validation tokens stand for {counted_bytes:,} bytes, their text has {counts.text_bytes:,}; "
                "a score in bits per byte would be wrong"
            )
        return counts.frozen()

    def write_train(self, records: Iterable[Record], drop_overlap: bool) -> SplitCounts:
        """Shards of the training split, free of validation texts."""
        counts = _Counts()
        with ShardWriter(self.folder, "fineweb_train_{:06d}.bin", self.shard_tokens) as shards:
            for batch, encoded in self.encoder.encode(records, with_text=False):
                clean = self._without_overlap(batch, encoded, drop_overlap)
                shards.append(clean.tokens)
                counts.add(clean, "train", self.progress)
        return counts.frozen()

    def _without_overlap(self, batch: list[Record], encoded: EncodedBatch, drop: bool) -> EncodedBatch:
        overlap = {digest for digest in encoded.digests if digest in self.val_digests}
        if not overlap:
            return encoded
        if not drop:
            record, digest = next((r, d) for r, d in zip(batch, encoded.digests, strict=True) if d in overlap)
            raise DataError(
                f"training document {record.where} has the same text as validation document {self.val_digests[digest]}; "
                "take it out, or leave such documents out with --drop-overlap"
            )
        clean = encoded.without(overlap)
        self.dropped += len(encoded.lengths) - len(clean.lengths)
        return clean


class _Counts:
    def __init__(self) -> None:
        self.documents = self.tokens = self.text_bytes = 0

    def add(self, batch: EncodedBatch, split: Split, progress: Progress) -> None:
        sizes = len(batch.lengths), len(batch.tokens), int(batch.text_bytes.sum())
        self.documents += sizes[0]
        self.tokens += sizes[1]
        self.text_bytes += sizes[2]
        progress.advance(split, *sizes)

    def frozen(self) -> SplitCounts:
        return SplitCounts(self.documents, self.tokens, self.text_bytes)


def _origin(path: Path) -> dict[str, Any]:
    """Name, size and hash of an input; of a folder, the hash over the names and hashes of its files."""
    if path.is_file():
        entry = file_entry(path)
        return {"name": path.name, "size_bytes": entry.size_bytes, "sha256": entry.sha256}
    digest, size = hashlib.sha256(), 0
    for file in input_files(path):
        entry = file_entry(file)
        digest.update(f"{file.relative_to(path).as_posix()}\0{entry.sha256}\n".encode())
        size += entry.size_bytes
    return {"name": path.name, "size_bytes": size, "sha256": digest.hexdigest()}
