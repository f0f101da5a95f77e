"""Tokens, nats, bits and bytes of the logs, held against the one text that everybody scores.

tokens x loss / (ln 2 x bpb) gives back the bytes that a scorer divided by, whatever the tokenizer and the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from underpar.referee.audit.canon import (
    BAND_BYTES,
    DOCUMENTS,
    OTHER_EXPORT,
    TEXT_BYTES,
    Canonical,
    implied_bytes,
    tokenizer_of,
    tokenizer_with,
)
from underpar.referee.audit.facts import LogFacts, Score
from underpar.referee.audit.outcome import Check, Found, Note, listed, show_line
from underpar.referee.audit.record import Record
from underpar.referee.rules import SCORE, TOKENIZER, Mark

INVARIANT = Check("bytes.invariant", "tokens, loss and bpb give back the bytes of the text", SCORE, "V16")
UNITS = Check("bytes.units", "loss and bpb keep one ratio", SCORE, "V18")
COVERAGE = Check("coverage.tokens", "the whole validation stream is scored", SCORE, "V08")
COUNTED = Check("coverage.documents", "all 50,000 documents are scored", SCORE, "V08")

_RATIO = 0.002
"""Scorers of one log differ in the tail that they drop, by 0.0001 at most among merged logs."""


@dataclass(frozen=True)
class Implied:
    """What one line implies: bytes of text, the share that rounding can have moved it, bytes per token."""

    log: LogFacts
    score: Score
    tokens: int
    bytes: float
    rounding: float

    @property
    def per_token(self) -> float:
        return self.bytes / self.tokens

    @property
    def place(self) -> str:
        return f"{self.log.name}:{self.score.line}"


def check_bytes(record: Record) -> Iterator[Found]:
    """Denominators and coverage of the 16 MB game."""
    if record.is_speedrun:
        return
    found = list(_implied(record))
    yield _units(record)
    yield from _stated_units(record, found)
    if record.track.own_text:
        return  # the text is the run's own; see check_own
    yield _invariant(record, found)
    yield _coverage(record, found)
    yield from _documents(record)


def _implied(record: Record) -> Iterator[Implied]:
    """The line that each log's score stands on; without one, its last line that prints both figures."""
    for run in record.runs:
        if run.log is None:
            continue
        candidates = [run.score] if run.score else []
        candidates += [s for s in reversed(list(run.log.all_scores())) if s.is_final]
        for score in candidates:
            tokens = run.block.tokens
            if score.loss and score.bpb and tokens and score.loss.value > 0 and score.bpb.value > 0:
                size = implied_bytes(tokens, score.loss.value, score.bpb.value)
                yield Implied(run.log, score, tokens, size, score.loss.relative + score.bpb.relative)
                break


# ---------------------------------------------------------------------------------------------- denominator


def _invariant(record: Record, found: list[Implied]) -> Found:
    if not found:
        if not record.logs:
            return INVARIANT.skipped("there is no log")
        return INVARIANT.lacks(
            "a log with val_tokens, val_loss and val_bpb",
            "no log prints tokens, loss and bpb together, so the denominator cannot be recomputed",
        )
    judged = [(one, *_judge(one)) for one in found]
    wrong = [(one, text, check) for one, text, check in judged if check is not None]
    if wrong:
        one, text, kind = wrong[0]
        see = show_line(str(record.root), one.place)
        own = kind == "G9"
        return INVARIANT.failed(
            text,
            see=see,
            rule=TOKENIZER if own else None,
            mark=Mark.COMMUNITY if own else None,
            vclass="V16" if own else kind or "",
            implied_bytes=round(one.bytes),
            text_bytes=TEXT_BYTES,
            logs=len(wrong),
        )
    sizes = sorted(round(one.bytes) for one in found)
    return INVARIANT.passed(f"{len(found)} logs: {judged[0][1]}", implied_bytes=sizes[:20])


def _judge(one: Implied) -> tuple[str, str | None]:
    """(what follows, the class of the fault or None)"""
    known = tokenizer_of(one.tokens)
    reference = known.text_bytes if known else TEXT_BYTES
    slack = BAND_BYTES + one.rounding * one.bytes
    off = one.bytes / reference - 1
    said = (
        f"{one.tokens:,} tokens x {one.score.loss} / (ln 2 x {one.score.bpb}) = {one.bytes:,.0f} bytes"
        f" ({one.per_token:.4f} a token, {known.name if known else 'no published tokenizer'})"
    )
    if abs(one.bytes - reference) <= slack:
        return f"{said}, the text has {reference:,} +- {BAND_BYTES:,}", None
    said = f"{one.place}: {said}; the text has {reference:,} +- {BAND_BYTES:,}, {off:+.2%}"
    if known is None and off < 0 and tokenizer_with(one.per_token):
        return f"{said}: fewer tokens at {one.per_token:.4f} bytes each means that a part was scored", "V08"
    if off < -OTHER_EXPORT:
        return f"{said}: fewer bytes than the text has were counted", "V08"
    if off < 0:
        return f"{said}, which raises the score", None
    if off <= OTHER_EXPORT and known is None:
        return f"{said}: another export of the text, or bytes counted twice; the count has to be shown", "G9"
    if 0.15 <= off <= 0.19:
        return f"{said}: as when the byte of a leading space is counted in the table and again while scoring", "V15"
    return f"{said}: bytes are counted that the text does not have, which lowers the score by as much", "V16"


# -------------------------------------------------------------------------------------------------- coverage


def _coverage(record: Record, found: list[Implied]) -> Found:
    tokens = [(log, *pair) for log in record.logs for pair in log.block.val_tokens[-1:]]
    if not tokens:
        return COVERAGE.skipped("no log prints the number of validation tokens")
    shares = [(log, count, line, share) for log, count, line in tokens if (share := _share(log, count, found)) < 0.995]
    if shares:
        log, count, line, share = shares[0]
        place = f"{log.name}:{line}"
        return COVERAGE.failed(
            f"{place}: {count:,} validation tokens, {share:.1%} of the stream", see=show_line(str(record.root), place),
            tokens=count, share=share,
        )  # fmt: skip
    counts = sorted({count for _, count, _ in tokens})
    names = sorted({t.name if (t := tokenizer_of(c)) else "own tokenizer" for c in counts})
    return COVERAGE.passed(f"{', '.join(f'{c:,}' for c in counts)} tokens ({', '.join(names)})", tokens=counts)


def _share(log: LogFacts, count: int, found: list[Implied]) -> float:
    """The part of the stream that a count stands for; 1 where nothing says otherwise."""
    if tokenizer_of(count):
        return 1.0
    per_token = next((one.per_token for one in found if one.log is log), None)
    known: Canonical | None = tokenizer_with(per_token) if per_token else None
    return count / max(known.tokens) if known else 1.0


def _documents(record: Record) -> Iterator[Found]:
    counts = [(log, *log.block.documents) for log in record.logs if log.block.documents]
    wrong = [(log, n, line) for log, n, line in counts if n != DOCUMENTS]
    for log, n, line in wrong[:1]:
        place = f"{log.name}:{line}"
        see = show_line(str(record.root), place)
        yield COUNTED.failed(f"{place}: {n:,} documents are scored, the text has {DOCUMENTS:,}", see=see, documents=n)
    if counts and not wrong:
        yield COUNTED.passed(f"{len(counts)} logs print {DOCUMENTS:,} documents")


# ----------------------------------------------------------------------------------------------------- units


def _units(record: Record) -> Found:
    """All lines of one log divide by the same text: val_loss / val_bpb is a constant of the log."""
    pairs = 0
    for log in record.logs:
        block = log.block
        rows = [s for s in (*block.periodic, *block.scores) if s.loss and s.bpb and s.loss.value and s.bpb.value]
        if not rows:
            continue
        pairs += len(rows)
        reference = _ratio(rows[0])
        for row in rows[1:]:
            ratio = _ratio(row)
            slack = _RATIO + sum(f.relative for s in (row, rows[0]) for f in (s.loss, s.bpb) if f)
            if abs(ratio / reference - 1) > slack:
                place = f"{log.name}:{row.line}"
                return UNITS.failed(
                    f"{place} ('{row.label or 'validation'}'): {ratio:.5f} nats a bit, line {rows[0].line} has "
                    f"{reference:.5f}; within one log the ratio is the bytes of a token and cannot move",
                    see=show_line(str(record.root), place), ratio=ratio, reference=reference,
                )  # fmt: skip
    if not pairs:
        return UNITS.skipped("no log prints loss and bpb together")
    return UNITS.passed(f"constant over {pairs} lines that print both")


def _ratio(score: Score) -> float:
    return float(score.loss or math.nan) / float(score.bpb or math.nan)


def _stated_units(record: Record, found: list[Implied]) -> Iterator[Found]:
    """A stated pair that fits neither a published tokenizer nor the logs."""
    claims = record.claims
    if claims is None or claims.bpb is None or claims.loss is None or claims.bpb.value <= 0:
        return
    per_token = claims.loss.value / (math.log(2) * claims.bpb.value)
    slack = 0.003 + claims.loss.relative + claims.bpb.relative
    logged = [one.per_token for one in found]
    if not logged or any(abs(per_token / other - 1) < slack for other in logged):
        return
    figures = [s.loss for log in record.logs for s in log.block.finals if s.loss]
    if any(claims.loss.agrees(f) for f in figures):
        return  # the loss of another pass, such as the one before adaptation
    yield Note(
        "stats.units",
        f"{claims.loss.where} = {claims.loss} and {claims.bpb.where} = {claims.bpb} imply {per_token:.4f} bytes a token, "
        f"the logs {listed([f'{v:.4f}' for v in sorted(set(logged))])}",
        vclass="V18",
        file=claims.file,
    )
