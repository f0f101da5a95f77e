"""Static suspicions about the scripts of a folder, and fingerprints of locally prepared data in its logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from underpar.referee.audit.files import Item
from underpar.referee.audit.outcome import Found, Note
from underpar.referee.audit.record import Record
from underpar.referee.audit.scan import scan_other, scan_script, scan_speedrun_source
from underpar.referee.audit.source import source_from_bytes

_MANY_SHARDS = 1_000
"""Published exports have 80 to 200 training shards; shards of ten million tokens are made at home."""


def check_scripts(record: Record) -> Iterator[Found]:
    """Notes only."""
    if record.made_by_underpar:
        return
    if record.is_speedrun:
        yield from _speedrun(record)
        return
    main = record.main_source
    run = {item.name for item in record.run_files}
    for source in record.sources:
        if source is main or source.item.name in run:
            yield from scan_script(source)
        elif source.item.suffix == ".py":
            yield from scan_other(source)
    yield from _fingerprints(record)


def _speedrun(record: Record) -> Iterator[Found]:
    """The first log's source; the others print the same, or check_source says otherwise."""
    for log in record.logs:
        if log.source:
            source = source_from_bytes(Item(Path(log.name).with_suffix(".py"), log.name, 0), _as_script(log.source))
            yield from scan_speedrun_source(
                source, medium=record.track.name == "speedrun-medium", steps=record.track.counts_steps
            )
            return


def _as_script(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _fingerprints(record: Record) -> Iterator[Found]:
    for log in record.logs:
        shards, hints = log.block.train_shards, log.block.hints
        if shards and shards[0] >= _MANY_SHARDS:
            yield Note(
                "scan.V09", f"{shards[0]:,} training shards: prepared at home, where the split defaults to 10,000 documents",
                "V09", log.name, shards[1],
            )  # fmt: skip
        if hints and max(hints[1:3]) > 3 * max(1, hints[0]):
            yield Note(
                "scan.V05", f"hints in or at words fire {max(hints[1:3]):,} times, the token gate {hints[0]:,}: "
                "do they look at the token that is charged?", "V05", log.name, hints[3],
            )  # fmt: skip
