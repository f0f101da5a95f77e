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
from underpar.referee.audit.claims import Claims, SeedClaim, read_claims
from underpar.referee.audit.facts import LogFacts, Score
from underpar.referee.audit.files import Inventory, Item, read_limited, take_inventory
from underpar.referee.audit.printed import Printed
from underpar.referee.audit.readlog import read_log_or_problem
from underpar.referee.audit.scan.siblings import executed_siblings
from underpar.referee.audit.source import Source, read_source
from underpar.referee.audit.track import Track, find_track

_NO_LOG = re.compile(r"requirements|readme|license|notes?\b|cmakelists|prompt|summary", re.IGNORECASE)
_NAMED_SEED = re.compile(r"(?:seed|(?<![a-z])s)[_-]?(\d{1,12})(?!\d)|log_(\d{1,12})$", re.IGNORECASE)
_CONTROL = re.compile(r"(?<![a-z])(?:baseline|control|previous|prev|before|main|old|reference)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Run:
    """One seed: its log, what is claimed of it, and the score that its log shows. Any of them may be absent."""

    seed: int | None
    log: LogFacts | None
    claim: SeedClaim | None
    score: Score | None

    @property
    def label(self) -> str:
        return self.log.name if self.log else f"seed {self.seed}"


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
        """The logs of the runs."""
        return [run.log for run in self.runs if run.log is not None]

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
    runs, others = _match(logs, claims, speedrun=speedrun)
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


# ------------------------------------------------------------------------------------------- logs to seeds


def named_seed(log: LogFacts) -> int | None:
    """The seed in the name of the file; in the name of its folder where the file's own says nothing."""
    parts = log.name.rsplit(".", 1)[0].split("/")
    for part in reversed(parts[-2:]):
        match = _NAMED_SEED.search(part)
        if match:
            return int(match[1] or match[2])
    return None


def seed_of(log: LogFacts) -> int | None:
    """The printed seed, else the one in the name."""
    return log.seed if log.seed is not None else named_seed(log)


def _match(logs: Sequence[LogFacts], claims: Claims | None, *, speedrun: bool) -> tuple[list[Run], list[LogFacts]]:
    """Runs of the record, and logs that are evidence of something else."""
    main = _main_group(logs)
    others = [log for log in logs if log not in main]
    if speedrun:
        return [Run(seed_of(log), log, None, log.block.last_validation) for log in main], others
    if claims is not None and claims.seeds:
        return _match_claimed(main, claims, others)
    distinct: list[Run] = []
    taken: set[Any] = set()
    for log in main:
        key = seed_of(log) if seed_of(log) is not None else log.sha256
        claimed = claims.bpb if claims else None
        if log.sha256 in taken or (key in taken and len(main) > 1):
            others.append(log)
            continue
        taken |= {key, log.sha256}
        distinct.append(Run(seed_of(log), log, None, pick_score(log, claimed)))
    return distinct, others


def _match_claimed(
    main: Sequence[LogFacts], claims: Claims, others: list[LogFacts]
) -> tuple[list[Run], list[LogFacts]]:
    """One run for each claimed seed, with the log that is named for it or prints it, the one that agrees first."""
    free = list(main)
    chosen: dict[int, LogFacts] = {}
    for claim in claims.seeds:
        own = [log for log in free if claim.seed in (named_seed(log), seed_of(log))]
        own.sort(key=lambda log: (not _agrees(log, claim), named_seed(log) != claim.seed, log.name))
        if own:
            chosen[claim.seed] = own[0]
            free.remove(own[0])
    left = [claim for claim in claims.seeds if claim.seed not in chosen]
    if len(left) == len(free) == 1 and seed_of(free[0]) is None:
        chosen[left[0].seed] = free.pop()
    runs = [
        Run(claim.seed, log, claim, pick_score(log, claim.bpb) if log else None)
        for claim in claims.seeds
        for log in (chosen.get(claim.seed),)
    ]
    return runs, [*others, *free]


def _agrees(log: LogFacts, claim: SeedClaim) -> bool:
    score = pick_score(log, claim.bpb)
    return bool(score and score.bpb and claim.bpb and claim.bpb.agrees(score.bpb))


def _main_group(logs: Sequence[LogFacts]) -> list[LogFacts]:
    """The logs of the record itself: in the folder, else in subfolders that are not named for a comparison."""
    top = [log for log in logs if "/" not in log.name or re.match(r"logs?/[^/]+$", log.name)]
    own = [log for log in top if not _CONTROL.search(log.name.rpartition("/")[2])]
    if top:
        return own or top
    own = [log for log in logs if not _CONTROL.search(log.name.rpartition("/")[0])]
    return own or list(logs)


def pick_score(log: LogFacts, claimed: Printed | None) -> Score | None:
    """The line that a log's score stands on: the one that agrees with the claim, else the last final one.

    Of lines that print the same score, the one with the most digits.
    """
    finals = [s for block in log.blocks for s in block.finals if s.bpb is not None]
    if not finals:
        return None
    agreeing = [s for s in finals if claimed is not None and s.bpb is not None and claimed.agrees(s.bpb)]
    last = [s for s in log.block.finals if s.bpb is not None] or finals
    best = (agreeing or last)[-1]
    same = [s for s in finals if s.bpb and best.bpb and s.bpb.agrees(best.bpb)]
    return min(same, key=lambda s: (s.bpb.unit if s.bpb else 1.0, -s.line))
