"""Small models and streams under test-time training, callable in this process and in others."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from support import BOS, busy, document_tokens, tiny_config
from underpar.core.world import World
from underpar.data.validation import ValStream
from underpar.evaluate.adaptation import (
    AdapterAdamW,
    DocumentTTT,
    GlobalSGD,
    LongestFirst,
    PhasedTTT,
    SequentialTTT,
    WarmStart,
)
from underpar.evaluate.scorers import adaptive_scorer
from underpar.model.gpt import GPT
from underpar.nn.adapters import LoRA
from underpar.nn.lookback import SmearGate


def small_model() -> GPT:
    config = tiny_config()
    config.smear = SmearGate(width=4)
    return busy(config.frozen()).eval()


def stream_of(tokens: np.ndarray) -> ValStream:
    counts = np.where(tokens == BOS, 0, 1).astype(np.int32)
    return ValStream(tokens, counts, np.flatnonzero(tokens == BOS).astype(np.int64))


def small_stream(count: int = 300, seed: int = 0) -> ValStream:
    return stream_of(document_tokens(count, mean_length=25, seed=seed))


COMMON: dict[str, Any] = {"context": 32, "chunk_tokens": 7, "slots": 3, "step_tokens": 96}


def documents(**changes: Any) -> DocumentTTT:
    given = {"lora": LoRA(rank=3, alpha=6.0), "optimiser": AdapterAdamW(lr=0.01)} | COMMON | changes
    return DocumentTTT(**given).frozen()


def phased(**changes: Any) -> PhasedTTT:
    given = {
        "lora": LoRA(rank=3),
        "optimiser": AdapterAdamW(lr=0.01, beta1=0.5),
        "prefix_documents": 7,
        "phases": 2,
        "sgd": GlobalSGD(lr=0.05, chunk_tokens=32, context=16),
    }
    return PhasedTTT(**(given | COMMON | changes)).frozen()


def sequential(**changes: Any) -> SequentialTTT:
    return SequentialTTT(
        **({"context": 16, "stride": 6, "chunk_tokens": 64, "lr": 0.05, "epochs": 2} | changes)
    ).frozen()


ADAPTATIONS = {
    "documents": documents,
    "warm": lambda: documents(start=WarmStart(seed=1), gradient_steps=2),
    "warm, longest first": lambda: documents(start=WarmStart(), order=LongestFirst()),
    "phased": phased,
    "phased, longest first": lambda: phased(order=LongestFirst(), start=WarmStart()),
    "sequential": sequential,
}


def rank_job(folder: str, name: str) -> None:
    """Score on this rank; what it found goes to a file."""
    torch.set_num_threads(1)
    world = World.join("cpu")
    found = adaptive_scorer(ADAPTATIONS[name](), small_model(), bos_id=BOS, world=world).charge(small_stream())
    np.save(Path(folder) / f"rank{world.rank}.npy", found.nats)
    world.leave()
