"""The third stage of a recipe: an artifact and held-out text in, a score out."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from underpar.core.config import from_dict
from underpar.core.errors import DataError
from underpar.core.world import World
from underpar.data.corpora import stream_documents
from underpar.data.manifest import VAL_TEXT_FILE
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import load_validation
from underpar.evaluate.adaptation import Adaptation
from underpar.evaluate.load import LoadedModel, load_model
from underpar.evaluate.score import Score, batch_tokens_on, score
from underpar.evaluate.scorers import adaptive_scorer
from underpar.lab.adaptive import chosen_adaptation, score_adapted
from underpar.lab.build import scorer
from underpar.lab.effects import reads_of
from underpar.lab.files import RunFolder, read_json, write_json
from underpar.lab.logs import append_score
from underpar.lab.say import say
from underpar.model.cost import on_meta
from underpar.recipes import Recipe
from underpar.records.baselines import compressor_baselines


@dataclass(frozen=True)
class Scoring:
    """What of an artifact's own way of being scored is changed, and what scoring may take."""

    mode: str | None = None
    """See `adaptive.chosen_adaptation`; None is the artifact's own."""
    overrides: tuple[str, ...] = ()
    batch_tokens: int | None = None
    budget_seconds: float | None = None
    first_tokens: int | None = None
    """Held-out tokens that count, from the start of the text; None is all."""

    @property
    def is_own(self) -> bool:
        return self.mode is None and not self.overrides


def score_artifact(
    artifact: Path, data: Path, world: World, scoring: Scoring | None = None
) -> tuple[dict[str, Any], Score]:
    """Load the artifact and score the held-out split of `data` with the artifact's own window, and then, where it adapts,
    with adaptation: that is the score, and "before_adaptation" the other.

    Returns (what score.json holds, the Score). Raises DataError when the tokens were made by another tokenizer.
    """
    scoring = scoring or Scoring()
    loaded = load_model(artifact, world.device)
    adaptation = chosen_adaptation(loaded.adaptation, scoring.mode, scoring.overrides, loaded.window)
    return score_loaded(
        loaded, adaptation, data, world,
        batch_tokens=scoring.batch_tokens, budget_seconds=scoring.budget_seconds, first_tokens=scoring.first_tokens,
    )  # fmt: skip


def score_loaded(
    loaded: LoadedModel,
    adaptation: Adaptation | None,
    data: Path,
    world: World,
    *,
    batch_tokens: int | None,
    budget_seconds: float | None,
    first_tokens: int | None,
) -> tuple[dict[str, Any], Score]:
    """As `score_artifact`, of a loaded model and with this adaptation."""
    tokenizer = load_tokenizer(data)
    if tokenizer.identity["sha256"] != loaded.tokenizer_identity["sha256"]:
        raise DataError(
            f"{data} was tokenised by {tokenizer.identity}, the artifact expects {loaded.tokenizer_identity}"
        )
    stream = load_validation(data).first(first_tokens)
    batch_tokens = batch_tokens or batch_tokens_on(world.device)
    losses_of = scorer(loaded.model, world)
    result = score(
        losses_of, stream, loaded.window, bos_id=tokenizer.bos_id, world=world, batch_tokens=batch_tokens,
        progress=_score_progress() if world.is_main else None,
    )  # fmt: skip
    adapted: dict[str, Any] = {"adaptation": None}
    if adaptation is not None:
        before = {name: result.to_json()[name] for name in ("bpb", "loss_nats", "eval_seconds")}
        if world.is_main:
            say(f"{result.bpb:.6f} bpb before adaptation; {adaptation}")
        adapted, result = score_adapted(
            loaded, adaptation, stream, bos_id=tokenizer.bos_id, world=world, plain=losses_of,
            budget_seconds=budget_seconds,
        )  # fmt: skip
        adapted["before_adaptation"] = before
    summary = (
        result.to_json()
        | adapted
        | {
            "window": str(loaded.window),
            "lossless": tokenizer.lossless,
            "tokenizer": tokenizer.identity,
            "world_size": world.size,
            "artifact_sha256": loaded.sha256,
        }
    )
    return summary, result


def _score_progress() -> Callable[[float], None]:
    last = [time.perf_counter()]

    def show(done: float) -> None:
        if time.perf_counter() - last[0] >= 5:
            last[0] = time.perf_counter()
            say(f"scoring: {done:.0%}")

    return show


def score_run(folder: RunFolder, data: Path, world: World, scoring: Scoring | None = None) -> dict[str, Any]:
    """Score a run's artifact; writes score.json, documents.npz and, for small texts, the compressors' figures.

    Nothing is written where `scoring` is not the artifact's own.
    """
    if scoring and not scoring.is_own:
        return score_artifact(folder.artifact, data, world, scoring)[0]
    config = from_dict(read_json(folder.config, "underpar train")["config"], Recipe)
    with reads_of(config, folder if world.is_main else None, "score"):
        size, limit, first = config.evaluate.batch_tokens, config.budget.eval_seconds, config.evaluate.first_tokens
        if config.evaluate.adaptation is not None:  # reads its settings when it is made
            adaptive_scorer(config.evaluate.adaptation, on_meta(config.model), bos_id=0)
    if scoring and scoring.budget_seconds is not None:
        limit = scoring.budget_seconds
    summary, result = score_artifact(
        folder.artifact, data, world, Scoring(batch_tokens=size, budget_seconds=limit, first_tokens=first)
    )  # fmt: skip
    if limit is not None and result.eval_seconds > limit and world.is_main:
        say(f"warning: scoring took {result.eval_seconds:.1f} s, the budget is {limit:g} s")
    summary["budget_eval_seconds"] = config.budget.eval_seconds
    if world.is_main:
        write_json(folder.score, summary)
        np.savez(
            folder.documents, bits=result.document_bits, bytes=result.document_bytes, tokens=result.document_tokens
        )
        append_score(folder.log, summary, config.evaluate.window, config.pack)
        text = held_out_text(data)
        if text is not None:
            baselines = [b.to_json() for b in compressor_baselines(text)]
            write_json(folder.baselines, {"text_bytes": len(text), "compressors": baselines})
    return summary


MAX_BASELINE_BYTES = 16_000_000
"""Held-out texts above this size are not given to the general-purpose compressors, which would take minutes."""


def held_out_text(data: Path) -> bytes | None:
    """The raw held-out documents one after another, or None when they are absent or too large to compress in passing."""
    source = data / VAL_TEXT_FILE
    if not source.exists():
        return None
    parts, size = [], 0
    for document in stream_documents([source]):
        parts.append(document.text.encode())
        size += len(parts[-1])
        if size > MAX_BASELINE_BYTES:
            return None
    return b"".join(parts) or None
