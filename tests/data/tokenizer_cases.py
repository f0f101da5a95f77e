"""Tokenizers and hostile texts that several test files use."""

import io
from functools import cache

import sentencepiece
from hypothesis import strategies as st

from underpar.data.caseops import MARKERS
from underpar.data.sample import sample_documents
from underpar.data.tokenizers import Bytes, CaseOps, Gpt2, SentencePiece, Tokenizer, TokenizerConfig

HOSTILE = [
    "",
    " ",
    "  two  leading and trailing  ",
    "\u2581",
    "a\u2581 \u2581\u2581b \u2581",
    "\0a\0\0 b\0",
    "\x01\x02\x1b[0m\x7f\x80\x9f",
    "\r\n\t\n\n\n",
    "<s></s><unk><pad><0x41>\u2047",
    "\ufeffbom\u200b\u200d\u2028\u2029",
    "😀👩‍👩‍👧‍👦🇩🇪 e\u0301 é ﬁ ½ ＡＢＣ",
    "日本語テキスト עברית العربية 한국어",
    "iPhone OpenAI NASA ABc A Ab ÉCOLE McX",
    "".join(MARKERS) + "A" + MARKERS[3] * 3 + "Bc" + MARKERS[0],
    "\U0010ffff\ue000\uf8ff\ufffd\ufffe\uffff",
    "1234567890 3.14159 0x7f",
    "a" * 5000,
    " " * 5000,
]

HOSTILE_TEXT = st.text(
    alphabet=st.one_of(
        st.sampled_from([*MARKERS, *" \u2581\0\n\t\r\x01\x7f", "é", "e\u0301"[1], "😀", "ﬁ", "Ａ", "\u200b", "\u3000"]),
        st.sampled_from("theanTHEAN<0x>s/"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
)

LOSSLESS: list[TokenizerConfig] = [Bytes(), Gpt2(), SentencePiece(vocab_size=1024), CaseOps(vocab_size=1024)]


@cache
def sample_texts(limit_bytes: int = 400_000) -> list[str]:
    texts, total = [], 0
    for document in sample_documents("train"):
        text = document.text
        texts.append(text)
        total += len(text)
        if total > limit_bytes:
            return texts
    return texts


@cache
def trained(name: str) -> Tokenizer:
    return next(choice for choice in LOSSLESS if choice.name == name).build(sample_texts())


@cache
def train_published_style(markers: tuple[str, ...] = (), **settings) -> bytes:
    """A model with the settings of the published ones, nmt_nfkc above all, unless `settings` says otherwise."""
    model = io.BytesIO()
    defaults = {"vocab_size": 600, "normalization_rule_name": "nmt_nfkc", "add_dummy_prefix": False}
    ids = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    options = defaults | ids | {"byte_fallback": True, "max_sentence_length": 2**30} | settings
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sample_texts()),
        model_writer=model,
        model_type="bpe",
        user_defined_symbols=list(markers),
        minloglevel=2,
        **options,
    )
    return model.getvalue()
