"""Logs and claimed seeds brought together: which log is the evidence of which run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from underpar.referee.audit.claims import Claims, SeedClaim
from underpar.referee.audit.facts import Block, LogFacts, Score
from underpar.referee.audit.printed import Printed

_NAMED_SEED = re.compile(r"(?:seed|(?<![a-z])s)[_-]?(\d{1,12})(?!\d)|log_(\d{1,12})$", re.IGNORECASE)
_CONTROL = re.compile(r"(?<![a-z])(?:baseline|control|previous|prev|before|main|old|reference)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Run:
    """One run: its log, what is claimed of it, and the score that its log shows. Any of them may be absent."""

    seed: int | None
    log: LogFacts | None
    claim: SeedClaim | None
    score: Score | None
    part: Block | None = None
    """Which part of the log, where the log holds several runs."""

    @property
    def block(self) -> Block:
        """What the log says of this run; nothing at all without a log."""
        return self.part or (self.log.block if self.log else Block())

    @property
    def label(self) -> str:
        if self.log is None:
            return f"seed {self.seed}"
        several = self.part is not None and len(self.log.finished) > 1
        return (
            f"{self.log.name}, run {self.log.blocks.index(self.part) + 1}" if several and self.part else self.log.name
        )


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


def match_logs(logs: Sequence[LogFacts], claims: Claims | None, *, speedrun: bool) -> tuple[list[Run], list[LogFacts]]:
    """Runs of the record, and logs that are evidence of something else."""
    main = _main_group(logs)
    others = [log for log in logs if log not in main]
    if speedrun:
        return [run for log in main for run in _speedruns(log)], others
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


def _speedruns(log: LogFacts) -> list[Run]:
    """The runs of a log: its finished parts, else the log as it stands."""
    if len(log.finished) < 2:
        return [Run(seed_of(log), log, None, log.block.last_validation)]
    return [
        Run(part.seeds[-1][0] if part.seeds else None, log, None, part.last_validation, part) for part in log.finished
    ]


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
