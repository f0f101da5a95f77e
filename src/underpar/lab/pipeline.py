"""One recipe, stage by stage: data, train, pack, score, verify, record, report. Each stage reads and writes files only."""

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from underpar.compress.gptq import Hessian
from underpar.compress.pack import pack
from underpar.compress.source import pack_source, source_closure
from underpar.core.clock import process_age
from underpar.core.config import from_dict, to_dict
from underpar.core.errors import DataError, TrainError, UnderparError
from underpar.core.recipe import Resolved
from underpar.core.world import World
from underpar.data.corpora import stream_documents
from underpar.data.manifest import VAL_TEXT_FILE
from underpar.data.tokenizers import load_tokenizer
from underpar.data.validation import load_validation
from underpar.evaluate.adaptation import Adaptation
from underpar.evaluate.load import LoadedModel, load_model
from underpar.evaluate.score import Score, score
from underpar.evaluate.scorers import adaptive_scorer
from underpar.kernels.attention import backend_for
from underpar.lab.adaptive import chosen_adaptation, score_adapted
from underpar.lab.adopt import adopt
from underpar.lab.build import build_model, build_trainer, scorer
from underpar.lab.calibrate import calibrate
from underpar.lab.effects import Watch, describe, reads_of, silent, unheard
from underpar.lab.environment import describe_environment, gpu_table
from underpar.lab.files import RunFolder, read_json, write_json
from underpar.lab.logs import PublishedLog, append_memory, append_score, append_sizes
from underpar.model.cost import on_meta
from underpar.nn.module import parameter_roles
from underpar.recipes import Recipe, registry
from underpar.records.baselines import compressor_baselines
from underpar.referee.counted_code import ENTRIES
from underpar.train.checkpoint import complete_checkpoints, load_checkpoint
from underpar.train.events import JsonLines, Sink, Sinks
from underpar.train.loop import Trainer
from underpar.train.progress import ConsoleProgress
from underpar.train.training import TrainResult
from underpar.train.weights import final_weights


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------- train


def train(
    resolved: Resolved[Recipe],
    folder: RunFolder,
    data: Path,
    world: World,
    *,
    sinks: tuple[Sink, ...] = (),
    resume: bool = True,
) -> TrainResult:
    """Train, resuming from the newest checkpoint in the folder. Writes config, environment, events, trace and checkpoints.

    Raises TrainError when interrupted (the checkpoint is written; the same command goes on from there).
    """
    if world.is_main:
        folder.path.mkdir(parents=True, exist_ok=True)
        if not resume:
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
    world.barrier()
    stages = {"start-up": _start_up()}
    watch = Watch(resolved)
    began = time.perf_counter()
    with watch.recording():
        trainer = build_trainer(resolved, data, world, folder.checkpoints)
    stages["build"] = time.perf_counter() - began
    resumed = resume and trainer.resume()
    if resumed and trainer.is_finished and folder.train.exists():
        if world.is_main:
            say(f"{folder.path}: already trained, {trainer.step:,} steps; --fresh trains again")
        return read_result(folder)
    began = time.perf_counter()
    watch.rehearse(trainer, world)
    stages["rehearsal"] = time.perf_counter() - began
    for name, seconds in stages.items():
        trainer.clock.book(name, seconds)
    if world.is_main:
        with watch.recording():
            _describe_run(resolved, folder, data, watch, world)
    trainer.sinks = _sinks(resolved, folder, world, trainer, sinks, resumed)
    try:
        result = trainer.run()
    finally:
        trainer.sinks.close()
    if world.is_main:
        write_json(folder.trace, trainer.trace.changes)
        write_json(folder.train, result.to_json())
        if result.stop_reason != "interrupted":
            watch.write(folder, trainer)
            for effect in silent(folder) + unheard(folder):
                say(f"warning: {describe(effect)}")
        if result.peak_memory_bytes is not None:
            append_memory(folder.log, result.peak_memory_bytes, torch.cuda.max_memory_reserved())
    if result.stop_reason == "interrupted":
        raise TrainError(
            f"interrupted at step {result.steps}; a checkpoint is in {folder.checkpoints}, the same command goes on"
        )
    return result


def read_result(folder: RunFolder) -> TrainResult:
    """What train.json holds."""
    found = read_json(folder.train, "underpar train")
    return TrainResult(**{key: value for key, value in found.items() if key != "breakdown"})


def _start_up() -> float:
    """Seconds from the beginning of the process to its first training; 0 for those after it."""
    age = 0.0 if _started else process_age()
    _started.append(age)
    return age


_started: list[float] = []


def take_training(
    resolved: Resolved[Recipe], folder: RunFolder, trained: RunFolder, data: Path, world: World
) -> TrainResult:
    """Instead of training: take that of the finished run `trained`, see `lab.adopt`. Raises as that does."""
    if world.is_main:
        folder.path.mkdir(parents=True, exist_ok=True)
        fingerprint = adopt(resolved, folder, trained)
        watch = Watch(resolved)
        _describe_run(
            resolved, folder, data, watch, world, trained={"as": str(trained.path), "fingerprint": fingerprint}
        )
        watch.write(folder, None)
        say(f"{folder.path}: training taken from {trained.path}")
    world.barrier()
    return read_result(folder)


def _sinks(
    resolved: Resolved[Recipe],
    folder: RunFolder,
    world: World,
    trainer: Trainer,
    extra: tuple[Sink, ...],
    resumed: bool,
) -> Sinks:
    if not world.is_main:
        return Sinks()
    config = resolved.config
    log = PublishedLog.of(config, folder.log, world, resume=resumed)
    events = JsonLines(folder.events, trainer.step if resumed else 0)
    return Sinks(required=(events, log), optional=(ConsoleProgress(config.budget.for_steps(), resolved.name), *extra))


def _describe_run(
    resolved: Resolved[Recipe],
    folder: RunFolder,
    data: Path,
    watch: Watch,
    world: World,
    trained: dict[str, str] | None = None,
) -> None:
    entry, config = registry.find(resolved.name), resolved.config
    write_json(
        folder.config,
        {
            "recipe": resolved.name,
            "summary": entry.summary,
            "track": resolved.track,
            "lineage": list(resolved.lineage),
            "overrides": list(resolved.overrides),
            "parent": watch.against if entry.parent or watch.changes else None,
            "diff": [{"path": c.path, "old": c.old, "new": c.new} for c in watch.changes],
            "fingerprint": resolved.fingerprint,
            "seed": config.seed,
            "data": str(data),
            "command": reproduction_command(resolved, data, world),
            "config": to_dict(config),
            "trained": trained,
        },
    )
    if trained is not None:
        return
    dtype = config.train.dtype(world)
    if printed := gpu_table():
        folder.gpu_table.write_text(printed, encoding="utf-8")
    write_json(
        folder.environment,
        describe_environment(
            backend_for(
                torch.device(world.device),
                dtype,
                packed=config.data.loader.is_packed,
                row_tokens=config.data.loader.seq_len,
            )
        ),
    )


def reproduction_command(resolved: Resolved[Recipe], data: Path, world: World) -> str:
    """The command line that repeats a run."""
    start = "underpar" if world.size == 1 else f"torchrun --standalone --nproc_per_node={world.size} -m underpar"
    parts = [start, "run", resolved.name, f"--seeds {resolved.config.seed}"]
    if resolved.track:
        parts.append(f"--track {resolved.track}")
    if not resolved.config.data.bundled:
        parts.append(f"--data {data}")
    parts += [f"--set '{text}'" for text in resolved.overrides if not text.startswith("seed=")]
    return " ".join(parts)


# ------------------------------------------------------------------------------------------------- pack


def pack_run(folder: RunFolder, *, enforce_budget: bool = True) -> dict[str, Any]:
    """Quantise and code the newest checkpoint, count the source, write the artifact. Returns what artifact.json holds.

    Raises ArtifactError over the byte budget, naming the largest tensors and what would bring it under.
    """
    described = read_json(folder.config, "underpar train")
    config = from_dict(described["config"], Recipe)
    found = complete_checkpoints(folder.checkpoints)
    if not found:
        raise UnderparError(
            f"{folder.checkpoints} has no finished checkpoint; 'underpar train {described['recipe']}' makes one"
        )
    with reads_of(config, folder, "pack"):
        return _pack(folder, described, config, found[-1], enforce_budget)


def _pack(
    folder: RunFolder, described: dict[str, Any], config: Recipe, checkpoint: Path, enforce_budget: bool
) -> dict[str, Any]:
    trained = described.get("trained") or described
    weights, which = final_weights(load_checkpoint(checkpoint, trained["fingerprint"]), config.averaging)
    roles = parameter_roles(on_meta(config.model))
    code = pack_source(source_closure(ENTRIES))
    folder.code.write_bytes(code)
    header = artifact_header(config, described["recipe"], described["fingerprint"], Path(described["data"]))
    hessians, seconds = calibrated(config, weights, Path(described["data"]))
    result = pack(
        {name: (tensor, roles[name]) for name, tensor in weights.items()},
        header,
        hessians=hessians,
        quantiser=config.pack.quantiser,
        codec=config.pack.codec,
        out_path=folder.artifact,
        budget_bytes=config.budget.artifact_bytes if enforce_budget else None,
        code_bytes=len(code),
    )
    info = result.to_json() | {"weights": which, "hessians": len(hessians or ()), "calibration_seconds": seconds}
    if seconds > config.budget.calibration_seconds and config.budget.train_seconds is not None:
        say(
            f"warning: calibration read training text for {seconds:.1f} s after the last step, the budget keeps "
            f"{config.budget.calibration_seconds:g} s for it; raise budget.calibration_seconds"
        )
    write_json(folder.artifact_info, info)
    append_sizes(folder.log, info, config.pack)
    return info


def artifact_header(config: Recipe, recipe: str, fingerprint: str, data: Path) -> dict[str, Any]:
    """What an artifact says of itself."""
    return {
        "model": to_dict(config.model),
        "window": to_dict(config.evaluate.window),
        "adaptation": to_dict(config.evaluate.adaptation),
        "tokenizer": load_tokenizer(data).identity,
        "recipe": recipe,
        "fingerprint": fingerprint,
    }


def calibrated(config: Recipe, weights: dict[str, Tensor], data: Path) -> tuple[dict[str, Hessian] | None, float]:
    """Hessians of the weights to be packed, where the quantiser wants them, and the seconds that they took.

    These seconds belong to the training budget, which keeps `calibration_seconds` for them.
    """
    if not config.pack.quantiser.needs_hessians:
        return None, 0.0
    world = World(device="cuda:0" if torch.cuda.is_available() else "cpu")
    model = build_model(config, world)
    with torch.no_grad():
        for name, param in model.named_parameters():
            param.copy_(weights[name])
    model.compute_dtype = config.train.dtype(world)
    bos_id = load_tokenizer(data).bos_id
    return calibrate(model, data, config.data.loader, bos_id, config.pack.calibration_tokens)


# ------------------------------------------------------------------------------------------------- score


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
    adaptation = chosen_adaptation(loaded.adaptation, scoring.mode, scoring.overrides)
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
    if batch_tokens is None:  # a CPU is fastest with batches that stay in its cache
        batch_tokens = 2048 if world.device == "cpu" else 65_536
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
