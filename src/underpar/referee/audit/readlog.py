"""A log of any size, read once from the front with bounded memory."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Iterator
from typing import BinaryIO

from underpar.core.errors import RecordError
from underpar.referee.audit.facts import Block, LogFacts, Score
from underpar.referee.audit.files import Item, open_plain
from underpar.referee.audit.loglines import STARTS, progress, score_line, take_line

CHUNK = 1 << 20
MAX_LOG_BYTES = 512 << 20
MAX_LINE_BYTES = 1 << 16
MAX_SOURCE_BYTES = 4 << 20
MAX_FACTS = 100_000
"""Lines of one log that are taken apart; real ones have a few thousand at most."""

RULE = b"=" * 100
_DIGITS = frozenset(bytes([d]) for d in b"0123456789")
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
        self.raw_progress: tuple[bytes, int] | None = None
        self.capturing = True
        self.source: list[bytes] = []
        self.source_size = 0
        self.gpus: set[str] = set()

    def read(self, stream: BinaryIO) -> None:
        for lines in self._batches(stream):
            self._take_batch(lines)
        self._close_progress()
        self.facts.lines = self.number
        self.facts.gpus = frozenset(self.gpus)

    def _batches(self, stream: BinaryIO) -> Iterator[list[bytes]]:
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
            yield lines
            if len(rest) > MAX_LINE_BYTES:
                long, rest = True, rest[:MAX_LINE_BYTES]
        self.facts.sha256 = digest.hexdigest()
        if long:
            self._problem(f"has a line over {MAX_LINE_BYTES:,} bytes; such lines were cut")
        if rest:
            yield [rest]

    def _problem(self, what: str) -> None:
        self.facts.problems.append(what)

    def _take_batch(self, lines: list[bytes]) -> None:
        """The only loop over all lines: most are steps and progress, and leave it after two comparisons."""
        start = self.number
        for index, line in enumerate(lines, start + 1):
            if self.capturing:
                self._capture(line, index)
            head = line[:4]
            if b"val_" in line:
                self.number = index
                self._take_printed(line, head)
            elif head == b"step":
                self.raw_progress = (line, index)
            elif head in STARTS:
                if line.startswith(STARTS[head]):
                    self.number = index
                    self._take_fact(line)
            elif line[:1] in _DIGITS:
                self.number = index
                self._take_numbered(line)
            elif head == b"====":
                self.number = index
                self._take_rule(line)
            elif head[:1] == b"|" and b"NVIDIA" in line and len(self.gpus) < 8:
                self.gpus.update(m[1] for m in _GPU.finditer(_text(line[:400])))
        self.number = start + len(lines)

    def _capture(self, line: bytes, index: int) -> None:
        """Keep what may be the script in front of the log, until the first rule or 4 MiB."""
        if index == 1 and not _SOURCE_START.match(line):
            self.capturing = False
            return
        self.source.append(line)
        self.source_size += len(line) + 1
        self.capturing = self.source_size < MAX_SOURCE_BYTES

    def _take_printed(self, line: bytes, head: bytes) -> None:
        """A line with val_loss, val_bpb or val_tokens."""
        if b"val_loss" in line or b"val_bpb" in line:
            self._take_score(line)
        elif head in STARTS and line.startswith(STARTS[head]):
            self._take_fact(line)
        elif head == b"step":
            self.raw_progress = (line, self.number)

    def _take_rule(self, line: bytes) -> None:
        """The first rule ends the printed script: nothing in front of it was a result."""
        if line.rstrip() == RULE and self.capturing:
            self.capturing = False
            self.facts.source = b"\n".join(self.source[:-1]).decode("utf-8", "replace")
            self.block = Block()
            self.facts.blocks[:] = [self.block]
            self.raw_progress, self.gpus = None, set()

    def _take_numbered(self, line: bytes) -> None:
        """Lines of the late form ('500/20000 train_loss: ...'), and lines behind a time stamp."""
        stamp = _EPOCH.match(line)
        if stamp:
            rest = line[stamp.end() :]
            if rest[:4] in STARTS and rest.startswith(STARTS[rest[:4]]):
                self._take_fact(rest)
            elif rest[:4] == b"step":
                self.raw_progress = (rest, self.number)
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
            if last is not None and last.step is not None and score.step < last.step and self._begins_anew(score, last):
                self._new_block()
                kept = self.block.periodic
        kept.append(score)

    def _begins_anew(self, score: Score, last: Score) -> bool:
        """Whether a smaller step is the start of another run."""
        return self.block.ended or last.step == last.total or score.step == 0

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
        self.block = Block()
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
