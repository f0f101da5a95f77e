"""Where an export of the 16 MB game can be fetched from: a local folder, or a dataset repository of the hub."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from underpar.core.errors import DataError

OFFICIAL_REPO = "willdepueoai/parameter-golf"
KNOWN_REPOS = {
    "sp8192": "kevclark/parameter-golf",
    "caseops8192": "romeerp/parameter-golf-caseops-v1",
    "gpt2": "kjj0/fineweb10B-gpt2",
}
"""Where an export lies that the official repository does not hold."""
HUB_FOLDER = ".hub"
"""Where huggingface-hub keeps what it is fetching, beside the finished files."""


class Source(Protocol):
    """Somewhere that holds an export."""

    @property
    def name(self) -> str:
        """What the manifest of the prepared folder calls it: no path."""

    def fetch(self, relative: str, target: Path) -> None:
        """Bring one file to `target`. Raises DataError when it cannot be had."""

    def has(self, relative: str) -> bool:
        """Whether the file is there, for the manifest whose place varies."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder with the layout of an export. Files are hard-linked where the disk allows it."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.resolve().name

    def has(self, relative: str) -> bool:
        return (self.root / relative).is_file()

    def fetch(self, relative: str, target: Path) -> None:
        origin = self.root / relative
        if not origin.is_file():
            raise DataError(f"{self.root} lacks {relative}, which its manifest names")
        target.unlink(missing_ok=True)
        try:
            os.link(origin.resolve(), target)
        except OSError:  # another disk, or one without links
            partial = target.with_name(target.name + ".partial")
            shutil.copyfile(origin, partial)
            partial.replace(target)


@dataclass(frozen=True)
class HubDataset:
    """A dataset repository of the Hugging Face hub, read through huggingface-hub, which resumes and checks sizes."""

    repo: str
    revision: str | None = None

    @property
    def name(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo

    def has(self, relative: str) -> bool:
        hub = _import_hub()
        return bool(self._ask(relative, lambda: hub.file_exists(self.repo, relative, **self._where)))

    def fetch(self, relative: str, target: Path) -> None:
        hub, scratch = _import_hub(), target.parent / HUB_FOLDER
        found = self._ask(
            relative, lambda: hub.hf_hub_download(self.repo, relative, local_dir=str(scratch), **self._where)
        )
        Path(found).replace(target)

    @property
    def _where(self) -> dict[str, Any]:
        return {"repo_type": "dataset", "revision": self.revision}

    def _ask(self, relative: str, call: Any) -> Any:
        try:
            return call()
        except Exception as problem:  # the library's errors vary between its versions; all of them mean the same here
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            raise DataError(
                f"cannot fetch {relative} from {self.repo}: {reason}; without a network, give --source DIR with the same layout"
            ) from None


def find_source(tokenizer: str, source: str | None = None) -> Source:
    """The folder or repository that `source` names, or the known home of the export. A name with '/' that is no folder
    is a repository, optionally with '@revision'."""
    if source is not None and Path(source).is_dir():
        return LocalFolder(Path(source))
    if source is not None and source.count("/") != 1:
        raise DataError(f"--source {source} is neither a folder nor a repository such as {OFFICIAL_REPO}")
    repo, _, revision = (source or KNOWN_REPOS.get(tokenizer, OFFICIAL_REPO)).partition("@")
    return HubDataset(repo, revision or None)


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise DataError(
            "fetching from the hub needs huggingface-hub: pip install 'underpar[data]', or give --source DIR with the export"
        ) from None
    return huggingface_hub
