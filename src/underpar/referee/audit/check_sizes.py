"""Bytes: the artifact against the cap on its largest seed, the code measured again, what was not counted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from underpar.core.units import format_bytes
from underpar.referee.audit.outcome import Check, Found, Note, listed, show_line
from underpar.referee.audit.record import Record
from underpar.referee.audit.rules import COUNTED, FIGURES
from underpar.referee.audit.runs import Run
from underpar.referee.rules import SIZE

CAP = Check("size.cap", "model plus code within the cap, on the largest seed", SIZE, "V19")
STATED = Check("size.claim", "stated sizes are those of the logs", FIGURES, "V19")
CODE = Check("size.code", "the shipped script is the code that was counted", FIGURES, "V19")
HELPERS = Check("size.helpers", "nothing that the script runs is left out of the count", COUNTED, "V19")

_ROUND = 10_000
"""A stated size that is a multiple of this is a guess, not a copy of another run's."""


def check_sizes(record: Record) -> Iterator[Found]:
    """Sizes of the 16 MB game."""
    limit = record.track.artifact_bytes
    if limit is None:
        return
    yield _cap(record, limit)
    yield _stated(record)
    yield from _code(record, limit)
    yield from _helpers(record, limit)


def _totals(record: Record) -> list[tuple[int, str]]:
    """(bytes, where) of every run: what its log prints, else what is stated of it."""
    found = []
    for run in record.runs:
        size = run.block.total_bytes
        if size is not None and run.log is not None:
            found.append((size.bytes, f"{run.log.name}:{size.line}"))
        elif run.claim is not None and run.claim.total_bytes is not None:
            found.append((round(run.claim.total_bytes.value), run.claim.total_bytes.where))
    if not found and record.claims:
        found = [(round(t.value), t.where) for t in record.claims.totals]
    return found


def _cap(record: Record, limit: int) -> Found:
    totals = _totals(record)
    if not totals:
        return CAP.lacks("the size of the artifact", "neither a log nor submission.json says how large the artifact is")
    largest, where = max(totals)
    stated = max((round(t.value) for t in record.claims.totals), default=0) if record.claims else 0
    if stated > largest:
        largest, where = stated, f"{record.claims.file if record.claims else ''}"
    room = limit - largest
    said = f"largest of {len(totals)} runs {largest:,} bytes ({where}), cap {limit:,}"
    if room < 0:
        mebi = ", which is under 16 MiB but the cap is decimal" if largest <= 16 << 20 and limit == 16_000_000 else ""
        return CAP.failed(f"{said}: {-room:,} over{mebi}", see=show_line(str(record.root), where), bytes=largest)
    return CAP.passed(f"{said}, {room:,} to spare", bytes=largest)


# ----------------------------------------------------------------------------------------------------- claims


def _stated(record: Record) -> Found:
    """Per seed to the byte; a headline may be the largest, the mean, any run, or the weights alone."""
    wrong = [text for run in record.runs if (text := _seed_size(run, record))]
    seen = sum(1 for run in record.runs if run.claim and run.claim.total_bytes and run.log and run.block.total_bytes)
    logged = [size.bytes for run in record.runs if run.log and (size := run.block.total_bytes)]
    if record.claims and logged:
        for stated in record.claims.totals:
            seen += 1
            if not _means(round(stated.value), record, logged) and stated.value < max(logged):
                wrong.append(f"{stated.where} = {stated}; the logs print {', '.join(f'{b:,}' for b in logged[:6])}")
    if wrong:
        return STATED.failed(listed(wrong), contradictions=wrong)
    return (
        STATED.passed(f"{seen} stated sizes found in the logs")
        if seen
        else STATED.skipped("no size is stated of a log")
    )


def _seed_size(run: Run, record: Record) -> str:
    size = run.block.total_bytes
    stated = run.claim.total_bytes if run.claim else None
    if stated is None or size is None or run.log is None:
        return ""
    value = round(stated.value)
    model = run.block.model_bytes
    if value == size.bytes or (model and value == model.bytes) or value % _ROUND == 0 or value > size.bytes:
        return ""
    owner = next((r for r in record.runs if r.log and r is not run and _prints(r, value)), None)
    copied = f", the size of seed {owner.seed}" if owner else ""
    return f"{stated.where} = {value:,}{copied}, but {run.log.name}:{size.line} prints {size.bytes:,}"


def _prints(run: Run, value: int) -> bool:
    size = run.block.total_bytes
    return size is not None and size.bytes == value


def _means(value: int, record: Record, logged: list[int]) -> bool:
    models = [m.bytes for log in record.logs if (m := log.block.model_bytes)]
    known = {*logged, *models, round(sum(logged) / len(logged)), max(logged)}
    return value % _ROUND == 0 or any(abs(value - other) <= 1 for other in known)


# ------------------------------------------------------------------------------------------------------- code


def _code(record: Record, limit: int) -> Iterator[Found]:
    """The code that was counted, held against the script in the folder."""
    source = record.main_source
    blocks = [(log, log.block) for log in record.logs if log.block.codes]
    if source is None or not source.shipped or not blocks or record.made_by_underpar:
        return
    shipped = len(source.shipped)
    printed = {size.bytes for _, block in blocks for size in block.codes}
    own = [(log, block.code_bytes, block.model_bytes) for log, block in blocks]
    if shipped in printed:
        yield CODE.passed(f"{source.item.name} has {shipped:,} bytes, as the logs print")
        return
    counted = max(size.bytes for _, size, _ in own if size)
    packed = any(size.label for _, block in blocks for size in block.codes)
    totals = [(model.bytes + shipped, log.name) for log, size, model in own if model]
    over = [(total, name) for total, name in totals if total > limit]
    said = f"{source.item.name} has {shipped:,} bytes; the logs counted {counted:,}"
    if over and not packed and source.layers == 0:
        total, name = max(over)
        yield CODE.failed(
            f"{said}. With the model of {name} that is {total:,} bytes, {total - limit:,} over the cap",
            rule=SIZE, see=shlex.join(["wc", "-c", f"{record.root}/{source.item.name}"]), shipped=shipped, counted=counted,
        )  # fmt: skip
    else:
        yield Note("size.code", f"{said}; the script was changed, or is shipped unpacked", "V19", source.item.name)


def _helpers(record: Record, limit: int) -> Iterator[Found]:
    """Files of the folder that the script executes, imports or compiles."""
    source = record.main_source
    if source is None or record.made_by_underpar:
        return
    files = record.run_files
    if not files:
        if source.tree is not None:
            yield HELPERS.passed(f"{source.item.name} runs no other file of the folder")
        return
    extra = sum(item.size for item in files)
    names = ", ".join(f"{item.name} ({item.size:,})" for item in files)
    largest = max((size for size, _ in _totals(record)), default=0)
    counted = {size.bytes for log in record.logs for size in log.block.codes}
    if counted and any(abs(size - (len(source.shipped) + extra)) <= 4 for size in counted):
        yield HELPERS.passed(f"{source.item.name} also runs {names}, and the logs count them")
        return
    if any(abs(item.size - size) <= 4 for item in files for size in counted):
        extra = len(source.shipped) if len(files) == 1 else extra
        names += f", which is what the logs counted; {source.item.name} ({len(source.shipped):,}) comes on top"
    total = largest + extra
    said = f"{source.item.name} also runs {names}: with it {total:,} bytes"
    if largest and total > limit:
        yield HELPERS.failed(
            f"{said}, {total - limit:,} over the cap", total_bytes=total, files=[f.name for f in files]
        )
    else:
        yield HELPERS.passed(f"{said}, {format_bytes(limit - total)} under the cap", files=[f.name for f in files])
