"""What a tokenizer that normalises loses, told token by token, and the length of the code that says it."""

import io
import json
import math
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from underpar.data.caseops import MARKERS
from underpar.data.sample import sample_documents
from underpar.data.sentencepiece_models import SentencePieceTokenizer, sentencepiece_tokenizer
from underpar.referee.recovery import Recovery
from underpar.referee.retokenise import retokenise

HOSTILE = [
    "",
    " ",
    "  two  leading and trailing  ",
    "a\u2581 \u2581\u2581b",
    "\0a\0\0 b\0\x1b[0m\x7f",
    "\r\n\t\n\n\n",
    "😀👩‍👩‍👧‍👦🇩🇪 e\u0301 é ﬁ ½ ＡＢＣ 日本語 עברית",
    "iPhone OpenAI NASA ABc A Ab ÉCOLE",
    "".join(MARKERS) + "A" + MARKERS[3] * 3 + "Bc" + MARKERS[0],
    "\U0010ffff\ue000\ufffd\ufffe\uffff",
    " " * 500,
]


def published_style(markers: tuple[str, ...] = ()) -> SentencePieceTokenizer:
    """A small model with the normalisation of the published ones."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(document.text for document in islice(sample_documents("train"), 60)),
        model_writer=model,
        model_type="bpe",
        vocab_size=500,
        normalization_rule_name="nmt_nfkc",
        add_dummy_prefix=False,
        byte_fallback=True,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        user_defined_symbols=list(markers),
        max_sentence_length=2**30,
        minloglevel=2,
    )
    return sentencepiece_tokenizer(model.getvalue())


@pytest.fixture(scope="module")
def normalising() -> SentencePieceTokenizer:
    return published_style()


def told(tokenizer: SentencePieceTokenizer, *texts: str) -> Recovery:
    recovery = Recovery(tokenizer)
    for text in texts:
        recovery.add(text)
    return recovery


def test_text_that_comes_back_costs_nearly_nothing(normalising: SentencePieceTokenizer) -> None:
    found = told(normalising, *["one plain sentence after the other"] * 500)
    assert found.places == 0
    assert found.restore_bits < 64


def test_line_ends_are_counted_and_priced(normalising: SentencePieceTokenizer) -> None:
    found = told(normalising, "first line\nsecond line\n\nthird ﬁne line")
    assert found.places >= 3
    assert found.whitespace == 2
    assert found.rewritten_bytes == len("\n") + len("\n\n") + len("ﬁ".encode())
    assert found.restore_bits > 8 * found.rewritten_bytes, "each is seen for the first time and must be spelled out"


def test_what_is_rare_and_what_is_irregular_is_dear(normalising: SentencePieceTokenizer) -> None:
    """Regular differences are nearly free in the long run, random ones cost their entropy."""
    words = ["word"] * 400
    random = np.random.default_rng(0).random(len(words)) < 0.5
    regular = told(normalising, "\n".join(words)).restore_bits
    irregular = told(
        normalising, "".join(w + ("\n" if r else " ") for w, r in zip(words, random, strict=True))
    ).restore_bits
    assert regular < 0.2 * len(words)
    assert irregular > 0.9 * len(words), "a coin toss a place"


def test_the_length_is_that_of_a_code_that_learns_as_it_goes(normalising: SentencePieceTokenizer) -> None:
    """The sequential code, one symbol after the other, in any order."""
    found = told(normalising, "a b\nc d\n\ne f\ng. h\ni j k")
    assert len([events for events in found.events if events]) > 0
    total = 0.0
    for events, units in zip(found.events, found.units.tolist(), strict=True):
        symbols = [event for event, count in events.items() for _ in range(count)]
        symbols += [None] * (units - len(symbols))
        seen: Counter[object] = Counter()
        for number, symbol in enumerate(np.random.default_rng(3).permutation(np.array(symbols, dtype=object)).tolist()):
            symbol = symbol if symbol is None else tuple(symbol)
            total -= math.log2(max(1, seen[symbol]) / (number + 1))
            if not seen[symbol]:
                total += 1 if symbol is None else _spelled(symbol)
            seen[symbol] += 1
    assert found.restore_bits == pytest.approx(total)


def _spelled(event: tuple[int, int, str]) -> float:
    size = len(event[2].encode())
    return 1 + 8 * size + sum(2 * math.floor(math.log2(number + 1)) + 1 for number in (event[0], event[1], size))


@pytest.mark.parametrize("markers", [(), MARKERS])
def test_hostile_text_is_told_whole(markers: tuple[str, ...]) -> None:
    tokenizer = published_style(markers)
    for text in HOSTILE:
        written, ids, ends = tokenizer.spans(text)
        assert np.all(np.diff(ends) >= 0)
        assert not len(ids) or ends[-1] == len(written)
        found = told(tokenizer, text)
        assert found.places <= found.units.sum()
        if len(ids) and tokenizer.decode(ids) != text:
            assert found.places > 0
            assert found.restore_bits > 0


def test_the_evidence_shows_the_first_difference(normalising: SentencePieceTokenizer, tmp_path: Path) -> None:
    text = tmp_path / "val.jsonl"
    text.write_text("".join(json.dumps({"text": t}) + "\n" for t in ("plain text", "one line\n\nand another")), "utf-8")
    fact = retokenise(text, normalising, lambda done: None).to_json()
    assert fact["altered_documents"] == 1
    assert fact["first_altered"] == 1
    assert fact["example"] == ["one line\n\nand another", "one line and another"]
    assert fact["decoded_bytes"] == fact["text_bytes"] - 1
    assert fact["stream_bytes"] == fact["text_bytes"]
    assert fact["recovery"]["places"] == 1
    json.dumps(fact, allow_nan=False)
