"""The files of a run: one folder per recipe and seed, everything in it readable without underpar."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underpar.core.errors import UnderparError
from underpar.core.whole import write_whole


@dataclass(frozen=True)
class RunFolder:
    """Paths inside `root/<recipe>/seed<seed>`."""

    path: Path

    @staticmethod
    def of(root: Path, recipe: str, seed: int) -> "RunFolder":
        return RunFolder(root / recipe.replace("/", "-") / f"seed{seed}")

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def gpu_table(self) -> Path:
        return self.path / "nvidia-smi.txt"

    @property
    def events(self) -> Path:
        return self.path / "train.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def trace(self) -> Path:
        return self.path / "trace.json"

    @property
    def effects(self) -> Path:
        return self.path / "effects.json"

    @property
    def train(self) -> Path:
        return self.path / "train.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def artifact(self) -> Path:
        return self.path / "artifact.upar"

    @property
    def artifact_info(self) -> Path:
        return self.path / "artifact.json"

    @property
    def code(self) -> Path:
        return self.path / "code.tar.xz"

    @property
    def score(self) -> Path:
        return self.path / "score.json"

    @property
    def documents(self) -> Path:
        return self.path / "documents.npz"

    @property
    def baselines(self) -> Path:
        return self.path / "baselines.json"

    @property
    def verdict(self) -> Path:
        return self.path / "verdict.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def forget_results(self) -> None:
        """Remove what earlier weights in this folder came to: training that goes on makes others."""
        self.forget_scores()
        for path in (self.train, self.trace, self.effects):
            path.unlink(missing_ok=True)

    def forget_scores(self) -> None:
        """Remove artifact, score and verdict of earlier weights in this folder."""
        for path in (
            self.artifact, self.artifact_info, self.code, self.score, self.documents, self.baselines, self.verdict, self.report,
        ):  # fmt: skip
            path.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write whole or not at all."""
    write_whole(path, json.dumps(data, indent=1) + "\n")


def read_json(path: Path, made_by: str) -> Any:
    """Read a stage's result. Raises UnderparError naming the command that makes it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnderparError(f"{path} is missing; '{made_by}' makes it") from None
    except ValueError as problem:
        raise UnderparError(f"{path} is not JSON: {problem}; make it again with '{made_by}'") from None
