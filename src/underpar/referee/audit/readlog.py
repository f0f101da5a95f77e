"""A log of any size, read once from the front with bounded memory."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Iterator
from typing import BinaryIO

from underpar.core.errors import RecordError
from underpar.referee.audit.facts import Block, LogFacts
from underpar.referee.audit.files import Item, open_plain
from underpar.referee.audit.loglines import STARTS, progress, score_line, take_line

CHUNK = 1 << 20
MAX_LOG_BYTES = 512 << 20
MAX_LINE_BYTES = 1 << 16
MAX_SOURCE_BYTES = 4 << 20
MAX_FACTS = 100_000
"""Lines of one log that are taken apart; real ones have a few thousand at most."""

RULE = b"=" * 100
_EPOCH = re.compile(rb"\d{9,10}\.\d+ +")
_GPU = re.compile(r"NVIDIA (GeForce RTX \d+\w*|RTX [\w ]+?\d+|[A-Z]{1,2}\d{2,3}\w?)\b")
_SOURCE_START = re.compile(rb"\s*(?:import |from \w|#|\"\"\"|'''|@|_|code\b)")
_RESTART = (b"Hyperparameters:", b"model_params:", b"seed:")


def read_log(item: Item) -> LogFacts:
    """Every fact of one log. What is wrong with the file itself is in `problems`; an unreadable file raises RecordError."""
    facts = LogFacts(item.name, item.size)
    with os.fdopen(open_plain(item.path), "rb", buffering=0) as stream:
        _Reader(facts).read(stream)
    return facts


class _Reader:
    """The state of one pass over a log."""

    def __init__(self, facts: LogFacts) -> None:
        self.facts = facts
        self.block = Block()
        self.facts.blocks.append(self.block)
        self.number = 0
        self.facts_read = 0
        self.rules = 0
        self.raw_progress: tuple[bytes, int] | None = None
        self.source: list[bytes] | None = None
        self.source_size = 0
        self.gpus: set[str] = set()

    def read(self, stream: BinaryIO) -> None:
        for line in self._lines(stream):
            self.number += 1
            self._take(line)
        self._close_progress()
        self.facts.lines = self.number
        self.facts.gpus = frozenset(self.gpus)

    def _lines(self, stream: BinaryIO) -> Iterator[bytes]:
        """Lines without their ends; an over-long line is cut, and said so once. Also hashes and checks the text."""
        digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
        rest, total, text, long = b"", 0, True, False
        while chunk := stream.read(CHUNK):
            total += len(chunk)
            if total > MAX_LOG_BYTES:
                self._problem(f"is over {MAX_LOG_BYTES:,} bytes; what follows was not read")
                break
            digest.update(chunk)
            if text:
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    text = False
                    self._problem(f"is not UTF-8, first seen before byte {total:,}")
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            yield from lines
            if len(rest) > MAX_LINE_BYTES:
                long, rest = True, rest[:MAX_LINE_BYTES]
        self.facts.sha256 = digest.hexdigest()
        if long:
            self._problem(f"has a line over {MAX_LINE_BYTES:,} bytes; such lines were cut")
        if rest:
            yield rest

    def _problem(self, what: str) -> None:
        self.facts.problems.append(what)

    def _take(self, line: bytes) -> None:
        if self.number == 1:
            self.source = [] if _SOURCE_START.match(line) else None
        if self.source is not None and self.rules == 0 and self.source_size < MAX_SOURCE_BYTES:
            self.source.append(line)
            self.source_size += len(line) + 1
        head = line[:4]
        if head == b"step" and b"val_" not in line:
            self.raw_progress = (line, self.number)
        elif b"val_loss" in line or b"val_bpb" in line:
            self._take_score(line)
        elif head in STARTS:
            self._take_fact(line)
        elif line[:1].isdigit():
            self._take_numbered(line)
        elif head == b"====" and line.rstrip() == RULE:
            self._take_rule()
        elif b"NVIDIA" in line and len(self.gpus) < 8:
            self.gpus.update(m[1] for m in _GPU.finditer(_text(line)))

    def _take_rule(self) -> None:
        """The first rule ends the printed script: nothing in front of it was a result."""
        self.rules += 1
        if self.rules == 1 and self.source is not None:
            self.facts.source = b"\n".join(self.source[:-1]).decode("utf-8", "replace")
            self.block = Block(self.number + 1)
            self.facts.blocks[:] = [self.block]
            self.raw_progress, self.gpus = None, set()

    def _take_numbered(self, line: bytes) -> None:
        """Lines of the late form ('500/20000 train_loss: ...'), and lines behind a time stamp."""
        stamp = _EPOCH.match(line)
        if stamp:
            self._take(line[stamp.end() :])
        elif b"train_time" in line[:80]:
            self.raw_progress = (line, self.number)

    def _counted(self, line: bytes) -> bool:
        """Whether this line is still read: not absurdly long, nor one of absurdly many."""
        self.facts_read += 1
        if self.facts_read == MAX_FACTS:
            self._problem(f"has over {MAX_FACTS:,} lines of results; the rest was not read")
        return len(line) <= 4096 and self.facts_read < MAX_FACTS

    def _take_score(self, line: bytes) -> None:
        if not self._counted(line):
            return
        stamp = _EPOCH.match(line)
        score = score_line(_text(line[stamp.end() :] if stamp else line), self.number, self._where(self.number))
        if score is None:
            return
        kept = self.block.periodic if score.step is not None else self.block.scores
        if score.step is not None:
            last = self.block.periodic[-1] if self.block.periodic else None
            if last is not None and last.step is not None and score.step < last.step and self.block.ended:
                self._new_block()
                kept = self.block.periodic
        kept.append(score)

    def _take_fact(self, line: bytes) -> None:
        if not self._counted(line):
            return
        if line.startswith(_RESTART) and self.block.ended and self.block.finals:
            self._new_block()
        if line.startswith(b"stop"):
            self._close_progress()
        take_line(self.block, _text(line), self.number, self._where(self.number))

    def _new_block(self) -> None:
        """A log may hold several runs one after another."""
        self._close_progress()
        self.block = Block(self.number)
        self.facts.blocks.append(self.block)

    def _close_progress(self) -> None:
        if self.raw_progress is not None:
            line, number = self.raw_progress
            found = progress(_text(line[:400]), self._where(number))
            if found is not None:
                self.block.last_progress = found
            self.raw_progress = None

    def _where(self, line: int) -> str:
        return f"{self.facts.name}:{line}"


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip()


def read_log_or_problem(item: Item) -> LogFacts:
    """Like `read_log`, with an unreadable file as a problem of an empty log."""
    try:
        return read_log(item)
    except RecordError as problem:
        return LogFacts(item.name, item.size, problems=[str(problem)])
