"""CaseOps: upper case written as markers, so that "The", "the" and "THE" share their letters. Exactly reversible.

Four private-use characters each stand for one operation on the ASCII letters that follow:

    U+E001 TITLE     the next letter is upper-case
    U+E002 ALLCAPS   the whole next run of letters is upper-case
    U+E003 CAPNEXT   the next letter inside a run is upper-case
    U+E004 ESC       the next character is one of these four, literally

    >>> ascii(encode_caseops("The NASA iPhone"))
    "'\\\\ue001the \\\\ue002nasa i\\\\ue003phone'"
    >>> decode_caseops(encode_caseops("The NASA iPhone"))
    'The NASA iPhone'

Letters outside ASCII are copied and end a run. A model over this text pays for the markers in bits, never in bytes: the
bytes of the original text are those of `original_bytes`.

Source: `lossless_caps_caseops_v1`, parameter-golf PR #1729.
"""

import re

import numpy as np

from underpar.core.errors import DataError

TITLE, ALLCAPS, CAPNEXT, ESC = "\ue001", "\ue002", "\ue003", "\ue004"
MARKERS = (TITLE, ALLCAPS, CAPNEXT, ESC)
"""In the order of their token ids: a CaseOps vocabulary has them right after the special tokens."""

# Begins at an upper-case letter and takes the rest of its run, so that lower-case words, most of any text, cost one scan.
_CAPITALS_OR_MARKER = re.compile("[A-Z][A-Za-z]*|[\ue001-\ue004]")
_UPPER = re.compile("[A-Z]")
_MARKER = re.compile("([\ue001-\ue004])")
_LETTERS = re.compile("[A-Za-z]*")


def encode_caseops(text: str) -> str:
    """The text with upper-case ASCII letters replaced by markers and lower-case letters. Cost: about 25 MB/s on a core."""

    def rewrite(match: re.Match[str]) -> str:
        word = match[0]
        if word in MARKERS:
            return ESC + word
        if _follows_letter(text, match.start()):
            return _mixed(word)
        if len(word) > 1 and word.isupper():
            return ALLCAPS + word.lower()
        return TITLE + word[0].lower() + _mixed(word[1:])

    return _CAPITALS_OR_MARKER.sub(rewrite, text)


def _follows_letter(text: str, start: int) -> bool:
    """Whether the run began before `start`. What precedes can only be lower-case: upper-case would have begun the match."""
    return start > 0 and "a" <= text[start - 1] <= "z"


def _mixed(letters: str) -> str:
    return letters if letters.islower() else _UPPER.sub(lambda match: CAPNEXT + match[0].lower(), letters)


class _Decoder:
    """The state between pieces of marked text: what is pending, and whether a word is under way."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.escape = False
        self.word_mode = ""  # TITLE or ALLCAPS, seen before the word that it applies to
        self.capnext = False
        self.in_word = False
        self.all_caps = False

    def marker(self, marker: str) -> None:
        if self.escape:
            self.parts.append(marker)
            self.escape = self.in_word = self.all_caps = False
        elif marker == CAPNEXT and not self.capnext:
            self.capnext = True
        elif marker == ESC and not self.pending:
            self.escape = True
        elif marker in (TITLE, ALLCAPS) and not self.pending and not self.in_word:
            self.word_mode = marker
        else:
            raise DataError(f"malformed CaseOps text: {_name(marker)} is not allowed {self._where()}")

    def plain(self, text: str) -> None:
        """Text without markers."""
        if self.escape:
            self.parts.append(text[0])
            self.escape = False
            if not _is_letter(text[0]):
                self.in_word = self.all_caps = False
            text = text[1:]
            if not text:
                return
        run = _LETTERS.match(text)[0]  # type: ignore[index]  # the pattern matches the empty string
        if not run and self.pending:
            raise DataError(f"malformed CaseOps text: a letter must come {self._where()}, not {text[0]!r}")
        if run:
            self._letters(run)
        rest = text[len(run) :]
        if rest:
            self.parts.append(rest)
            self.in_word, self.all_caps = _is_letter(rest[-1]), False

    def _letters(self, run: str) -> None:
        if not self.in_word:
            self.all_caps = self.word_mode == ALLCAPS
        raise_first = bool(self.word_mode) or self.capnext
        if self.all_caps:
            run = run.upper()
        elif raise_first:
            run = run[0].upper() + run[1:]
        self.parts.append(run)
        self.word_mode, self.capnext, self.in_word = "", False, True

    @property
    def pending(self) -> bool:
        return self.escape or self.capnext or bool(self.word_mode)

    def _where(self) -> str:
        if self.escape:
            return "after ESC"
        if self.capnext:
            return "after CAPNEXT"
        return f"after {_name(self.word_mode)}" if self.word_mode else "inside a word"

    def text(self) -> str:
        if self.pending:
            raise DataError(f"malformed CaseOps text: it ends {self._where()}")
        return "".join(self.parts)


def decode_caseops(text: str) -> str:
    """The original of `encode_caseops`. Raises DataError on markers that no encoder writes."""
    decoder = _Decoder()
    for index, part in enumerate(_MARKER.split(text)):
        if index % 2:
            decoder.marker(part)
        elif part:
            decoder.plain(part)
    return decoder.text()


def _is_letter(char: str) -> bool:
    return char.isascii() and char.isalpha()


def _name(marker: str) -> str:
    return ("TITLE", "ALLCAPS", "CAPNEXT", "ESC")[MARKERS.index(marker)]


def utf8_lengths(text: str) -> np.ndarray:
    """UTF-8 bytes of every character: uint8 (len(text),). Raises DataError on a lone surrogate, which has no UTF-8."""
    try:
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError as problem:
        raise lone_surrogate(problem) from None
    lengths = np.ones(len(points), dtype=np.uint8)
    for first in (0x80, 0x800, 0x10000):
        lengths += points >= first
    return lengths


def original_bytes(marked: str) -> np.ndarray:
    """Bytes of the original text that every character of CaseOps text stands for: uint8 (len(marked),).

    A marker stands for none; an escaped marker for its own three.
    """
    lengths = utf8_lengths(marked)
    literal_until = -1
    for match in _MARKER.finditer(marked):
        position = match.start()
        if position == literal_until:
            continue
        lengths[position] = 0
        if match[0] == ESC:
            literal_until = position + 1
    return lengths


def lone_surrogate(problem: UnicodeEncodeError) -> DataError:
    """The error for text that has no UTF-8 form, with the place."""
    point = ord(problem.object[problem.start])
    return DataError(
        f"character {problem.start:,} is the lone surrogate U+{point:04X}, which UTF-8 cannot hold; repair or drop the text"
    )
