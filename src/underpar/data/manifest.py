"""What a folder of prepared tokens holds: counts, hashes, tokenizer and split rule, in manifest.json.

The manifest is written last. A folder without one, or one whose files do not match it, is not a set of tokens.
It holds no time and no path, so that the same text and tokenizer give the same manifest, byte for byte.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from underpar.core.errors import DataError
from underpar.core.units import format_bytes
from underpar.data.shards import SPLITS, read_count, shard_files, sidecar_files

MANIFEST_FILE = "manifest.json"
VAL_TEXT_FILE = "val.jsonl.zst"
FORMAT = "underpar-tokens"
VERSION = 1

_IDENTITY_TYPES = {"name": str, "vocab_size": int, "sha256": str, "lossless": bool, "normalization": str}


@dataclass(frozen=True)
class SplitCounts:
    """Sizes of one split. `tokens` has one BOS per document; `text_bytes` is UTF-8, None where the text is not known."""

    documents: int
    tokens: int
    text_bytes: int | None

    def __post_init__(self) -> None:
        _check_counts(self.documents, self.tokens, *(() if self.text_bytes is None else (self.text_bytes,)))


@dataclass(frozen=True)
class FileEntry:
    """Size and sha256 (hex) of a file."""

    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        _check_counts(self.size_bytes)
        if not isinstance(self.sha256, str) or len(self.sha256) != 64:
            raise ValueError(f"sha256 {self.sha256!r}")


def _check_counts(*values: object) -> None:
    for value in values:
        if type(value) is not int or value < 0:
            raise ValueError(f"count {value!r}")


@dataclass(frozen=True)
class Manifest:
    """The contents of a prepared folder.

    tokenizer: its identity (kind, name, vocab_size, sha256 of the model, lossless, normalization).
    split_rule: how validation documents were chosen. byte_counts: 'sidecar' (of the original text) or 'lookup'.
    origin: the inputs that the set was made from, with size and sha256, or the published export.
    overlap_documents_dropped: training documents left out because the same text is in the validation split.
    """

    tokenizer: dict[str, Any]
    bos_id: int
    splits: dict[str, SplitCounts]
    split_rule: dict[str, Any]
    byte_counts: str
    origin: dict[str, Any]
    overlap_documents_dropped: int
    files: dict[str, FileEntry]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify the tokens: the tokenizer and the hash of every file."""
        facts = [self.tokenizer.get("sha256"), sorted((name, entry.sha256) for name, entry in self.files.items())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1) + "\n"

    def write(self, folder: Path) -> None:
        """Write manifest.json: the last file of a set."""
        (folder / MANIFEST_FILE).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, *, check_hashes: bool = False) -> "Manifest":
        """The manifest of a folder whose files all are there with their sizes, counts and shard headers.

        Raises DataError saying what is missing or damaged and which command makes it. Cost: a header per shard;
        `check_hashes` reads every byte.
        """
        folder = Path(folder)
        manifest = cls._parse(folder)
        manifest._check_files(folder)
        manifest._check_counts(folder)
        if check_hashes:
            for name, entry in manifest.files.items():
                if file_entry(folder / name) != entry:
                    raise DataError(
                        f"{folder / name} is damaged: its sha256 is not the manifest's; {how_to_make(folder)}"
                    )
        return manifest

    @classmethod
    def _parse(cls, folder: Path) -> "Manifest":
        try:
            data = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
        except FileNotFoundError:
            raise DataError(f"{folder} holds no prepared tokens (no {MANIFEST_FILE}); {how_to_make(folder)}") from None
        except (OSError, ValueError) as problem:
            raise DataError(f"{folder / MANIFEST_FILE} cannot be read: {problem}; {how_to_make(folder)}") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise DataError(f"{folder / MANIFEST_FILE} is not one of {FORMAT}; {how_to_make(folder)}")
        if data.get("version") != VERSION:
            raise DataError(
                f"{folder} has format version {data.get('version')}, this is {VERSION}; {how_to_make(folder)}"
            )
        try:
            return cls._build(data)
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise DataError(f"{folder / MANIFEST_FILE} is damaged ({problem!r}); {how_to_make(folder)}") from None

    @classmethod
    def _build(cls, data: dict[str, Any]) -> "Manifest":
        names = set(cls.__dataclass_fields__)
        if names != set(data) - {"format", "version"}:
            raise ValueError(f"fields {sorted(names ^ (set(data) - {'format', 'version'}))}")
        kinds = {"bos_id": int, "byte_counts": str, "overlap_documents_dropped": int}
        for name in names:
            if type(data[name]) is not kinds.get(name, dict):
                raise ValueError(f"{name} is of type {type(data[name]).__name__}")
        for name, kind in _IDENTITY_TYPES.items():
            if type(data["tokenizer"][name]) is not kind:
                raise ValueError(f"tokenizer.{name} is of type {type(data['tokenizer'][name]).__name__}")
        if not set(data["splits"]) <= set(SPLITS):
            raise ValueError(f"splits {sorted(data['splits'])}")
        if any(Path(name).name != name for name in data["files"]):
            raise ValueError("a file name with a folder")
        fields = {name: data[name] for name in names}
        fields["splits"] = {name: SplitCounts(**counts) for name, counts in data["splits"].items()}
        fields["files"] = {name: FileEntry(**entry) for name, entry in data["files"].items()}
        return cls(**fields)

    def _check_files(self, folder: Path) -> None:
        for name, entry in self.files.items():
            path = folder / name
            if not path.is_file():
                raise DataError(f"{path} is missing; {how_to_make(folder)}")
            size = path.stat().st_size
            if size != entry.size_bytes:
                raise DataError(
                    f"{path} is {size:,} B, the manifest says {entry.size_bytes:,} B; {how_to_make(folder)}"
                )

    def _check_counts(self, folder: Path) -> None:
        groups = {split: shard_files(folder, split) for split in SPLITS}
        for split, paths in groups.items():
            self._check_listed(paths, folder)
            found, counts = sum(read_count(p) for p in paths), self.splits.get(split)
            if found != (counts.tokens if counts else 0):
                raise DataError(
                    f"{folder} holds {found:,} {split} tokens, the manifest says {counts.tokens if counts else 0:,}; "
                    f"{how_to_make(folder)}"
                )
        sidecars = sidecar_files(folder)
        self._check_listed(sidecars, folder)
        if sidecars and [read_count(p) for p in sidecars] != [read_count(p) for p in groups["val"]]:
            raise DataError(
                f"the byte sidecars of {folder} are not as long as its validation shards; {how_to_make(folder)}"
            )

    def _check_listed(self, paths: Iterable[Path], folder: Path) -> None:
        for path in paths:
            if path.name not in self.files:
                raise DataError(f"{path} is not in the manifest of {folder}; remove it")

    def describe(self) -> str:
        """A few lines for a person: tokenizer, splits, size."""
        lossless = "lossless" if self.tokenizer["lossless"] else f"LOSSY ({self.tokenizer['normalization']})"
        lines = [f"tokenizer    {self.tokenizer['name']}, {self.tokenizer['vocab_size']:,} ids, {lossless}"]
        for split, counts in self.splits.items():
            size = "bytes not known" if counts.text_bytes is None else format_bytes(counts.text_bytes)
            ratio = (
                f", {counts.text_bytes / counts.tokens:.3f} bytes/token" if counts.text_bytes and counts.tokens else ""
            )
            lines.append(f"{split:<12} {counts.documents:,} documents, {counts.tokens:,} tokens, {size}{ratio}")
        lines.append(f"split rule   {', '.join(_named(key, value) for key, value in self.split_rule.items())}")
        if self.overlap_documents_dropped:
            lines.append(
                f"dropped      {self.overlap_documents_dropped:,} training documents that are in the validation split"
            )
        lines.append(f"byte counts  {self.byte_counts}")
        lines.append(f"fingerprint  {self.fingerprint} ({len(self.files)} files)")
        return "\n".join(lines)


def _named(key: str, value: object) -> str:
    return str(value) if key == "rule" else f"{key} = {value}"


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path.stat().st_size, digest)


def how_to_make(folder: Path) -> str:
    """The end of every message about data that is missing: the commands that would make it."""
    return (
        f"make it with 'underpar data prepare TRAIN --val VAL --tokenizer sp1024 --out {folder}' "
        f"or 'underpar data fineweb --tokenizer sp1024 --out {folder}'"
    )
