"""A small real artifact with its tokenizer, its text, its counted code and its true claim."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from underpar.compress.codecs import Zlib
from underpar.compress.pack import pack
from underpar.compress.quantise import Int8PerRow
from underpar.compress.source import pack_source, source_closure
from underpar.core.config import to_dict
from underpar.data.sample import sample_documents
from underpar.data.tokenizer_base import ByteTokenizer
from underpar.evaluate.load import load_model
from underpar.evaluate.score import score
from underpar.evaluate.windows import Sliding
from underpar.model.gpt import GPTConfig
from underpar.nn.attention import Attention
from underpar.nn.module import parameter_roles
from underpar.referee.claim import Claim
from underpar.referee.counted_code import ENTRIES
from underpar.referee.retokenise import retokenise
from underpar.referee.submission import Submission

MODEL = GPTConfig(vocab_size=260, num_layers=2, model_dim=32, attention=Attention(num_heads=2, num_kv_heads=1)).frozen()
WINDOW = Sliding(context=64, stride=32).frozen()


@dataclass(frozen=True)
class Honest:
    """Files of a result whose every claim is true."""

    artifact: Path
    tokenizer: Path
    text: Path
    code: Path
    documents: tuple[str, ...]
    score: dict[str, object]
    sizes: dict[str, object]

    @property
    def claim(self) -> Claim:
        return Claim.of(self.score, self.sizes, {"packed_sha256": self.sizes["sha256"], "device": "cpu"})

    def submission(self, **changes: object) -> Submission:
        plain = Submission(self.artifact, self.tokenizer, self.text, self.code, self.claim)
        return replace(plain, **changes)


def write_documents(path: Path, documents: tuple[str, ...]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    folder = tmp_path_factory.mktemp("honest")
    documents = tuple(document.text[:2500] for document in list(sample_documents("val"))[:5])
    documents += ("", "Ünïcödé \U0001f3cc ▁ and the end")
    text = write_documents(folder / "val.jsonl", documents)
    tokenizer = ByteTokenizer()
    tokenizer.save(folder / "data")
    code = folder / "code.tar.xz"
    code.write_bytes(pack_source(source_closure(ENTRIES)))
    artifact = folder / "artifact.upar"
    sizes = _pack(artifact, tokenizer, code.stat().st_size)
    return Honest(artifact, folder / "data", text, code, documents, _score(artifact, text, tokenizer), sizes)


def _pack(path: Path, tokenizer: ByteTokenizer, code_bytes: int) -> dict[str, object]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MODEL.build()
    with torch.no_grad():
        for name, param in model.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                param.normal_(std=0.05)  # out of the identity at initialisation: layers must matter to the probes
    roles = parameter_roles(model)
    tensors = {name: (param.detach(), roles[name]) for name, param in model.named_parameters()}
    header = {"model": to_dict(MODEL), "window": to_dict(WINDOW), "tokenizer": tokenizer.identity}
    limit = 16_000_000
    done = pack(
        tensors, header, quantiser=Int8PerRow().frozen(), codec=Zlib().frozen(), out_path=path, budget_bytes=limit,
        code_bytes=code_bytes,
    )  # fmt: skip
    return done.to_json()


def _score(artifact: Path, text: Path, tokenizer: ByteTokenizer) -> dict[str, object]:
    loaded = load_model(artifact)
    stream = retokenise(text, tokenizer, lambda done: None).stream
    found = score(loaded.model, stream, loaded.window, bos_id=tokenizer.bos_id, batch_tokens=4096)
    return found.to_json() | {"artifact_sha256": loaded.sha256, "budget_eval_seconds": 600.0}


@pytest.fixture(scope="session")
def stream_tokens(honest: Honest) -> np.ndarray:
    """uint16 tokens of the honest text, a BOS before every document."""
    return retokenise(honest.text, ByteTokenizer(), lambda done: None).stream.tokens
