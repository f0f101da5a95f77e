"""One record folder, read: its claims, its logs matched to the claimed seeds, its scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from underpar.core.errors import RecordError
from underpar.referee.audit.claims import Claims, read_claims
from underpar.referee.audit.facts import LogFacts, Score
from underpar.referee.audit.files import Inventory, Item, read_limited, take_inventory
from underpar.referee.audit.readlog import read_log_or_problem
from underpar.referee.audit.runs import Run, match_logs
from underpar.referee.audit.scan.siblings import executed_siblings
from underpar.referee.audit.source import Source, read_source
from underpar.referee.audit.stopping import at_stopping_step
from underpar.referee.audit.track import Track, find_track

_NO_LOG = re.compile(r"requirements|readme|license|notes?\b|cmakelists|prompt|summary", re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """Everything that the checks may look at."""

    root: Path
    inventory: Inventory
    track: Track
    claims: Claims | None
    runs: tuple[Run, ...]
    other_logs: tuple[LogFacts, ...]
    readme: str | None
    sources: tuple[Source, ...]
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    """JSON files that `underpar record` adds: config, environment and verdicts, by file name."""
    problems: tuple[str, ...] = ()
    """Files that are there and could not be read."""

    @property
    def is_speedrun(self) -> bool:
        return self.track.is_speedrun

    @property
    def logs(self) -> list[LogFacts]:
        """The logs of the runs, each once."""
        return list({id(run.log): run.log for run in self.runs if run.log is not None}.values())

    @cached_property
    def main_source(self) -> Source | None:
        """The training script: train_gpt.py, else the only script, else the largest that trains."""
        by_name = [s for s in self.sources if s.item.base == "train_gpt.py"]
        if by_name:
            return by_name[0]
        scripts = [s for s in self.sources if s.item.suffix == ".py"]
        training = [s for s in scripts if re.search(r"train", s.item.base)]
        ranked = sorted(training or scripts, key=lambda s: -s.item.size)
        return ranked[0] if ranked else None

    @cached_property
    def run_files(self) -> list[Item]:
        """Files beside the training script that it runs."""
        return executed_siblings(self.main_source, self.sources, self.inventory) if self.main_source else []

    @property
    def values(self) -> list[float]:
        """The scores that the logs show: bits per byte, in the speedrun nats per token."""
        found = [self._value(run.score) for run in self.runs]
        return [value for value in found if value is not None]

    @property
    def metric(self) -> str:
        return "val_loss" if self.is_speedrun else "val_bpb"

    @property
    def made_by_underpar(self) -> bool:
        return "config.json" in self.own and any(name.startswith("verdict") for name in self.own)

    def _value(self, score: Score | None) -> float | None:
        figure = score and (score.loss if self.is_speedrun else score.bpb)
        return float(figure) if figure else None


def read_record(root: Path, *, track: Track | None = None) -> Record:
    """Read a record folder of either game. Raises RecordError only when the folder itself cannot be listed."""
    inventory = take_inventory(root)
    problems: list[str] = []
    claims = _claims(inventory, problems)
    logs = [log for log in map(read_log_or_problem, _log_items(inventory)) if log.is_log or log.problems]
    problems += [f"{log.name} {problem}" if not problem.startswith("cannot") else problem
                 for log in logs for problem in log.problems]  # fmt: skip
    logs = [log for log in logs if log.is_log]
    own = _own_files(inventory)
    speedrun = track.is_speedrun if track else _is_speedrun(root, claims, logs)
    found = track or find_track(root, claims.track if claims else "", _budget(own), speedrun=speedrun)
    runs, others = match_logs(logs, claims, speedrun=speedrun)
    if found.counts_steps and found.target_nats:
        runs = at_stopping_step(runs, found.target_nats)
    sources = [read_source(item) for item in _script_items(inventory)]
    return Record(
        root=root,
        inventory=inventory,
        track=found,
        claims=claims,
        runs=tuple(runs),
        other_logs=tuple(others),
        readme=_readme(inventory, problems),
        sources=tuple(sources),
        own=own,
        problems=tuple(problems),
    )


def _claims(inventory: Inventory, problems: list[str]) -> Claims | None:
    files = inventory.named("submission.json") or [
        i for i in inventory.items if re.fullmatch(r"submission[_-][\w-]+\.json", i.base) and not i.group
    ]
    for item in files[:1]:
        try:
            return read_claims(item)
        except RecordError as problem:
            problems.append(str(problem))
    return None


def _log_items(inventory: Inventory) -> Iterable[Item]:
    for item in inventory.items:
        if item.suffix == ".log" or (item.suffix in (".txt", ".out") and not _NO_LOG.search(item.base)):
            yield item


def _script_items(inventory: Inventory) -> Iterable[Item]:
    yield from inventory.with_suffix(".py", ".sh", ".cpp", ".cc", ".c", ".cu", ".cuh", ".h")


def _readme(inventory: Inventory, problems: list[str]) -> str | None:
    for item in inventory.named("readme.md", "readme", "readme.txt")[:1]:
        try:
            return read_limited(item.path).decode("utf-8", "replace")
        except RecordError as problem:
            problems.append(str(problem))
    return None


def _own_files(inventory: Inventory) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for item in inventory.items:
        if item.name in ("config.json", "environment.json") or re.fullmatch(r"verdict_seed\d+\.json", item.name):
            try:
                data = json.loads(read_limited(item.path))
            except (RecordError, ValueError, RecursionError):
                continue  # somebody else's file of that name
            if isinstance(data, dict):
                found[item.name] = data
    return found


def _budget(own: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The budget in the configuration of a run made with underpar."""
    tree = own.get("config.json", {}).get("config")
    budget = tree.get("budget") if isinstance(tree, dict) else None
    has_verdicts = any(name.startswith("verdict") for name in own)
    return budget if isinstance(budget, dict) and has_verdicts else None


def _is_speedrun(root: Path, claims: Claims | None, logs: Sequence[LogFacts]) -> bool:
    """A loss without bits per byte, in logs or above them."""
    if any(re.match(r"track_[123]_", part) for part in root.resolve().parts[-4:]):
        return True
    if claims is not None and claims.bpb is not None:
        return False
    return bool(logs) and not any(log.has_bpb for log in logs)
