"""What is handed in: the files, and what is claimed of them. Gathered from a run folder or named one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from underpar.core.errors import DataError
from underpar.data.manifest import VAL_TEXT_FILE
from underpar.data.shards import read_count, shard_files
from underpar.data.tokenizer_base import IDENTITY_FILE, MODEL_FILE
from underpar.referee.case import ByteLimit
from underpar.referee.claim import Claim, read_claim_file

ARTIFACT_FILE = "artifact.upar"
CODE_FILE = "code.tar.xz"
SCORE_FILE = "score.json"
SIZES_FILE = "artifact.json"
MOST_TRAIN_TOKENS = 200_000_000
"""A run's own training shards are compared with its held-out text unasked up to here: some twenty seconds."""


@dataclass(frozen=True)
class Submission:
    """One result to be judged."""

    artifact: Path
    tokenizer: Path
    """A folder with tokenizer.model and tokenizer.json, or a SentencePiece .model file."""
    text: Path | None
    """The raw held-out documents; None where only tokens were kept."""
    code: Path | None = None
    claim: Claim = field(default_factory=Claim)
    limit: ByteLimit = field(default_factory=ByteLimit)
    command: str = ""
    """What repeats the verdict."""
    train: tuple[Path, ...] = ()
    """Training shards to compare the text with; they do not cross the line."""

    def __post_init__(self) -> None:
        for what, path in (("artifact", self.artifact), ("text", self.text), ("code archive", self.code)):
            if path is not None and not path.is_file():
                raise DataError(f"there is no {what} at {path}; name an existing file")
        if not self.tokenizer.exists():
            raise DataError(f"there is no tokenizer at {self.tokenizer}; name a prepared folder or a .model file")

    def copies(self) -> dict[str, Path]:
        """Name inside the clean process's folder -> file. Only these cross the line."""
        files = {ARTIFACT_FILE: self.artifact}
        if self.text is not None:
            files[self.text_name] = self.text
        if self.tokenizer.is_dir():
            names = (MODEL_FILE, IDENTITY_FILE)
            files |= {f"tokenizer/{name}": self.tokenizer / name for name in names if (self.tokenizer / name).is_file()}
        else:
            files[self.tokenizer_name] = self.tokenizer
        return files

    @property
    def text_name(self) -> str:
        """The text's name in the clean process; its ending tells how it is compressed."""
        if self.text is None:
            return ""
        return "text" + "".join(self.text.suffixes[-2:])

    @property
    def tokenizer_name(self) -> str:
        return "tokenizer" if self.tokenizer.is_dir() else "tokenizer.model"

    def describe(self) -> dict[str, Any]:
        """sha256 and bytes of every file, as plain JSON data."""
        files = self.copies() | ({CODE_FILE: self.code} if self.code else {})
        return {"files": {name: identity(path) for name, path in files.items()}, "command": self.command}


def submission_from_run(run: Path, *, data: Path | None = None, limit_bytes: int | None = None) -> Submission:
    """The artifact, code and claim of a run folder, with the held-out text and, if they are not too long, the training shards
    of its prepared data.

    data: the prepared folder; None takes the one that the run's config.json names.
    Raises DataError naming the command that makes a missing file.
    """
    for name, verb in ((ARTIFACT_FILE, "pack"), (SIZES_FILE, "pack"), (SCORE_FILE, "score")):
        if not (run / name).is_file():
            raise DataError(f"{run} has no {name}; 'underpar {verb} {run}' makes it")
    score, sizes = read_claim_file(run / SCORE_FILE), read_claim_file(run / SIZES_FILE)
    config = read_claim_file(run / "config.json") if (run / "config.json").is_file() else {}
    data = data or _data_of(run, config)
    text, code = data / VAL_TEXT_FILE, run / CODE_FILE
    device = _device_of(run)
    packed = sizes.get("sha256")
    train = tuple(shard_files(data, "train"))
    return Submission(
        artifact=run / ARTIFACT_FILE,
        tokenizer=data,
        text=text if text.is_file() else None,
        code=code if code.is_file() else None,
        claim=Claim.of(score, sizes, {"packed_sha256": packed, "device": device}),
        limit=_limit(limit_bytes, sizes.get("budget_bytes")),
        command=" ".join([f"underpar verify {run} --data {data}", *_limit_option(limit_bytes)]),
        train=train if sum(read_count(shard) for shard in train) <= MOST_TRAIN_TOKENS else (),
    )


def submission_from_files(
    artifact: Path,
    tokenizer: Path,
    text: Path,
    *,
    claims: Sequence[Path] = (),
    code: Path | None = None,
    limit_bytes: int | None = None,
) -> Submission:
    """An artifact with everything named. Several claim files add up, such as score.json and artifact.json of a run."""
    claim = Claim.of(*(_renamed(read_claim_file(path)) for path in claims))
    parts = [f"underpar verify {artifact} --tokenizer {tokenizer} --text {text}"]
    parts += [f"--claim {' '.join(map(str, claims))}"] if claims else []
    parts += [f"--code {code}"] if code else []
    parts += _limit_option(limit_bytes)
    limit = _limit(limit_bytes, claim.budget_bytes)
    return Submission(artifact, tokenizer, text, code, claim, limit, " ".join(parts))


def _renamed(data: dict[str, Any]) -> dict[str, Any]:
    """artifact.json calls the hash of the packed file 'sha256'."""
    return data | ({"packed_sha256": data["sha256"]} if "sha256" in data else {})


def _limit(given: int | None, claimed: Any) -> ByteLimit:
    """The limit on the command line, else the one that the submission was packed under, else that of the game."""
    if given is not None:
        return ByteLimit(given, "the command line")
    if isinstance(claimed, int) and not isinstance(claimed, bool) and claimed > 0:
        return ByteLimit(claimed, "the run's own budget")
    return ByteLimit()


def _limit_option(given: int | None) -> list[str]:
    return [] if given is None else [f"--limit-bytes {given}"]


def _data_of(run: Path, config: dict[str, Any]) -> Path:
    named = config.get("data")
    if not isinstance(named, str):
        raise DataError(f"{run}/config.json names no prepared data; name the folder with --data")
    folder = Path(named)
    if not folder.is_dir():
        raise DataError(f"{folder}, the data that {run} was trained on, is not here; name a copy with --data")
    return folder


def _device_of(run: Path) -> str | None:
    path = run / "environment.json"
    if not path.is_file():
        return None
    return "cuda" if read_claim_file(path).get("gpu") else "cpu"


def identity(path: Path) -> dict[str, Any]:
    """sha256 and bytes of a file. Raises DataError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem.strerror}") from None
