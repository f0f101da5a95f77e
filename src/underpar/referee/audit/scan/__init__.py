"""Reading scripts for constructs that invalid results were made with. A hit is a suspicion with its line, never a verdict:
static readers of this game have raised false alarms and given false clearances; only a replay proves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from underpar.referee.audit.outcome import Note
from underpar.referee.audit.scan.adaptation import scan_adaptation
from underpar.referee.audit.scan.bytecount import scan_bytecount
from underpar.referee.audit.scan.datause import scan_data, scan_preparation
from underpar.referee.audit.scan.mixtures import scan_mixtures
from underpar.referee.audit.scan.outside import scan_outside
from underpar.referee.audit.scan.reading import Reading, Suspicion, TooLong
from underpar.referee.audit.scan.speedrun import scan_speedrun
from underpar.referee.audit.scan.structure import scan_structure
from underpar.referee.audit.source import Source

MOST_OF_A_CLASS = 3
"""Hits of one class in one file that are told."""


Scanner = Callable[[Reading], Iterator[Suspicion]]

TRAINING: tuple[Scanner, ...] = (
    scan_adaptation, scan_mixtures, scan_bytecount, scan_data, scan_preparation, scan_outside, scan_structure,
)  # fmt: skip


def scan_script(source: Source) -> list[Note]:
    """Every suspicion about a training or scoring script of the 16 MB game, in the order of the lines."""
    return _scan(source, TRAINING)


def scan_other(source: Source) -> list[Note]:
    """Suspicions about a script that the training script does not run: how its data was prepared."""
    return _scan(source, (scan_preparation,))


def scan_speedrun_source(source: Source, *, medium: bool = False, steps: bool = False) -> list[Note]:
    """Suspicions about the source in a log of the speedrun."""
    return _scan(source, (lambda reading: scan_speedrun(reading, medium=medium, steps=steps),))


def _scan(source: Source, scanners: Iterable[Scanner]) -> list[Note]:
    """Hits as notes: each line once for a class, a few for each class."""
    if source.tree is None:
        return []
    where = f"{source.item.name} (unpacked)" if source.layers else source.item.name
    hits: list[Suspicion] = []
    unread: list[Note] = []
    try:
        reading = Reading(source)
        for scanner in scanners:
            hits += scanner(reading)
    except (TooLong, RecursionError) as problem:
        why = str(problem) if isinstance(problem, TooLong) else "nested too deep"
        unread = [Note("scan.unread", f"not scanned to the end: {why}", file=where)]
    return [Note(f"scan.{hit.vclass}", hit.reason, hit.vclass, where, hit.line) for hit in _few(hits)] + unread


def _few(hits: Iterable[Suspicion]) -> Iterator[Suspicion]:
    told: Counter[str] = Counter()
    seen: set[tuple[str, int]] = set()
    for hit in sorted(hits, key=lambda h: (h.line, h.vclass)):
        if (hit.vclass, hit.line) in seen or told[hit.vclass] >= MOST_OF_A_CLASS:
            continue
        seen.add((hit.vclass, hit.line))
        told[hit.vclass] += 1
        yield hit
