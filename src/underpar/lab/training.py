"""The first stage of a recipe: train it into a run folder, or take the training of another run."""

import shutil
import time
from pathlib import Path

import torch

from underpar.core.clock import process_age
from underpar.core.config import to_dict
from underpar.core.errors import Interrupted
from underpar.core.recipe import Resolved
from underpar.core.world import World
from underpar.kernels.attention import backend_for
from underpar.lab.adopt import adopt
from underpar.lab.build import build_trainer
from underpar.lab.effects import Watch, describe, silent, unheard
from underpar.lab.environment import describe_environment, gpu_table
from underpar.lab.files import RunFolder, read_json, write_json
from underpar.lab.logs import PublishedLog, append_memory
from underpar.lab.say import say
from underpar.recipes import Recipe, registry
from underpar.train.events import JsonLines, Sink, Sinks
from underpar.train.loop import Trainer
from underpar.train.progress import ConsoleProgress
from underpar.train.training import TrainResult


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

    Raises Interrupted when somebody asked for its end (the checkpoint is written; the same command goes on from there).
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
    ended = resumed and _ended_at(folder, trainer.step)
    world.barrier()  # everybody has looked
    if ended:
        if world.is_main:
            say(f"{folder.path}: already trained, {trainer.step:,} steps; --fresh trains again")
        return read_result(folder)
    if world.is_main:
        folder.forget_results()
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
        raise Interrupted(
            f"interrupted at step {result.steps}; a checkpoint is in {folder.checkpoints}, the same command goes on"
        )
    return result


def read_result(folder: RunFolder) -> TrainResult:
    """What train.json holds."""
    found = read_json(folder.train, "underpar train")
    return TrainResult(**{key: value for key, value in found.items() if key != "breakdown"})


def _ended_at(folder: RunFolder, step: int) -> bool:
    """Whether the training in the folder came to its end at this step.

    A clock that stands just before its limit might allow one more step; a score that was measured must not lose its weights.
    """
    if not folder.train.exists():
        return False
    found = read_result(folder)
    return found.stop_reason != "interrupted" and found.steps == step


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
        folder.forget_scores()
        watch = Watch(resolved)
        _describe_run(
            resolved, folder, data, watch, world, trained={"as": str(trained.path), "fingerprint": fingerprint}
        )
        watch.write_taken(folder, trained)
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
