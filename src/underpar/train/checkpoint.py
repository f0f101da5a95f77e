"""Checkpoints: one safetensors file and one JSON file in a folder that appears whole or not at all."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from underpar.core.errors import TrainError

KEEP = 2
_PARTS = ("model", "optimiser", "averaging")


@dataclass
class Position:
    """Where a run stands, apart from its tensors."""

    fingerprint: str
    step: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    loader_position: int = 0
    trace: dict[str, list[list[float]]] = field(default_factory=dict)
    paused_seconds: dict[str, float] = field(default_factory=dict)
    visited_seconds: list[float] = field(default_factory=list)
    """What the clock showed as each step began: with the step number, all that a schedule has seen."""
    recompilations: int = 0
    loss_nats: float | None = None
    step_ms_median: float | None = None


class Checkpoint(NamedTuple):
    """Where a run stood, its weights after that step, and the state of what updates and averages them."""

    position: Position
    model: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    averaging: dict[str, Tensor]


def save_checkpoint(folder: Path, saved: Checkpoint) -> Path:
    """Write `folder/step-00000123` through a temporary sibling, flushed to disk before it is renamed; keep the newest two."""
    position = saved.position
    final = folder / f"step-{position.step:08d}"
    temporary = folder / f".{final.name}.tmp-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {f"{part}.{name}": t for part in _PARTS for name, t in getattr(saved, part).items()}
    weights = temporary / "tensors.safetensors"
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, weights)
    state = asdict(position) | {"tensors_sha256": _sha256(weights)}
    (temporary / "state.json").write_text(json.dumps(state | {"sha256": _seal(state)}))
    for path in (weights, temporary / "state.json", temporary):
        _flush(path)
    if final.exists():  # taken away whole: a kill while it is being deleted must not leave half of it under its name
        replaced = folder / f".{final.name}.old.tmp-{os.getpid()}"
        final.rename(replaced)
        temporary.rename(final)
        shutil.rmtree(replaced)
    else:
        temporary.rename(final)
    _flush(folder)
    for old in complete_checkpoints(folder)[:-KEEP]:
        doomed = folder / f".{old.name}.old.tmp-{os.getpid()}"
        old.rename(doomed)
        shutil.rmtree(doomed)
    return final


def complete_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first; also clears what a killed run left half-written."""
    if not folder.is_dir():
        return []
    for leftover in folder.glob(".step-*.tmp-*"):
        owner = leftover.name.rpartition("-")[2]
        if owner.isdecimal() and int(owner) != os.getpid() and not _alive(int(owner)):
            shutil.rmtree(leftover, ignore_errors=True)
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").exists())


def load_checkpoint(path: Path, fingerprint: str | None = None) -> Checkpoint:
    """A checkpoint, its tensors on the CPU.

    Raises TrainError when the files are damaged or belong to another configuration than `fingerprint`.
    """
    try:
        state = json.loads((path / "state.json").read_text())
        if state.pop("sha256") != _seal(state):
            raise ValueError("state.json does not match its checksum")
        digest = state.pop("tensors_sha256")
        position = Position(**state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise TrainError(f"checkpoint {path} is damaged: {problem}; delete it to fall back to an older one") from None
    if fingerprint is not None and position.fingerprint != fingerprint:
        raise TrainError(
            f"checkpoint {path} was made by configuration {position.fingerprint}, this is {fingerprint}; "
            "--fresh starts over, or use another --out"
        )
    weights = path / "tensors.safetensors"
    if not weights.exists() or _sha256(weights) != digest:
        raise TrainError(
            f"checkpoint {path} is damaged: its tensors do not match; delete it to fall back to an older one"
        )
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for key, tensor in load_file(weights).items():
        part, _, name = key.partition(".")
        parts[part][name] = tensor
    return Checkpoint(position, **parts)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seal(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
