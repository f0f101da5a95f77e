"""CaseOps against a slow reading of its definition, character by character."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.core.errors import DataError
from underpar.data.caseops import ALLCAPS, CAPNEXT, ESC, MARKERS, TITLE, decode_caseops, encode_caseops, original_bytes

LETTERS = "abzABZ"
TEXT = st.text(
    alphabet=st.one_of(
        st.sampled_from(LETTERS), st.sampled_from([*MARKERS, " ", "\n", "\0", "é", "É", "ſ", "😀", "İ", "\u2581", "0"])
    ),
    max_size=40,
)


def is_letter(char: str) -> bool:
    return "a" <= char <= "z" or "A" <= char <= "Z"


def encode_slowly(text: str) -> str:
    """The published definition, one maximal run of ASCII letters at a time."""
    out, at = [], 0
    while at < len(text):
        if not is_letter(text[at]):
            out.append(ESC + text[at] if text[at] in MARKERS else text[at])
            at += 1
            continue
        end = at
        while end < len(text) and is_letter(text[end]):
            end += 1
        out.append(encode_word(text[at:end]))
        at = end
    return "".join(out)


def encode_word(word: str) -> str:
    if word == word.lower():
        return word
    if len(word) >= 2 and word == word.upper():
        return ALLCAPS + word.lower()
    if word[0] != word[0].lower() and word[1:] and word[1:] == word[1:].lower():
        return TITLE + word.lower()
    marked = TITLE + word[0].lower() if word[0] != word[0].lower() else word[0]
    return marked + "".join(CAPNEXT + c.lower() if c != c.lower() else c for c in word[1:])


@given(TEXT)
def test_encoder_follows_the_definition(text):
    assert encode_caseops(text) == encode_slowly(text)


@given(st.one_of(TEXT, st.text(max_size=60)))
def test_round_trip_is_the_identity(text):
    marked = encode_caseops(text)
    assert decode_caseops(marked) == text
    assert not any("A" <= c <= "Z" for c in marked)


@given(st.one_of(TEXT, st.text(max_size=60)))
def test_original_bytes_of_prefixes(text):
    """Every character of the marked text adds the bytes of what the decoder adds for it."""
    marked = encode_caseops(text)
    counts = original_bytes(marked)
    assert len(counts) == len(marked)
    assert int(counts.sum()) == len(text.encode())
    upto = np.cumsum(counts)
    for index in range(len(marked)):
        try:
            prefix = decode_caseops(marked[: index + 1])
        except DataError:  # the prefix ends on a marker that waits for its letter, and adds nothing
            assert counts[index] == 0
        else:
            assert int(upto[index]) == len(prefix.encode())


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("The", f"{TITLE}the"),
        ("NASA", f"{ALLCAPS}nasa"),
        ("A", f"{TITLE}a"),
        ("iPhone", f"i{CAPNEXT}phone"),
        ("OpenAI", f"{TITLE}open{CAPNEXT}a{CAPNEXT}i"),
        ("ABc", f"{TITLE}a{CAPNEXT}bc"),
        ("ÉCOLE", f"É{ALLCAPS}cole"),
        ("éA", f"é{TITLE}a"),
        (f"a{TITLE}B", f"a{ESC}{TITLE}{TITLE}b"),
        ("\ue000", "\ue000"),
    ],
)
def test_known_cases(text, marked):
    assert encode_caseops(text) == marked


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        (TITLE, "ends after TITLE"),
        (ESC, "ends after ESC"),
        (f"a{CAPNEXT}", "ends after CAPNEXT"),
        (f"{ALLCAPS} a", "a letter must come after ALLCAPS, not ' '"),
        (f"{TITLE}{TITLE}a", "TITLE is not allowed after TITLE"),
        (f"a{ALLCAPS}b", "ALLCAPS is not allowed inside a word"),
        (f"{CAPNEXT}{CAPNEXT}a", "CAPNEXT is not allowed after CAPNEXT"),
        (f"{TITLE}{ESC}{TITLE}", "ESC is not allowed after TITLE"),
    ],
)
def test_malformed_text_is_refused(marked, message):
    with pytest.raises(DataError, match=message):
        decode_caseops(marked)


def test_lone_surrogate_is_named_with_its_place():
    with pytest.raises(DataError, match=r"character 2 is the lone surrogate U\+D800"):
        original_bytes("ab\ud800")
