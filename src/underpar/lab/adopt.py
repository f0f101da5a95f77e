"""Training that was paid for once: a run of another recipe takes it over where both train alike, and packs and scores anew."""

import os
import shutil

from underpar.core.config import diff, from_dict
from underpar.core.errors import UnderparError
from underpar.core.recipe import Resolved
from underpar.lab.files import RunFolder, read_json
from underpar.recipes import Recipe
from underpar.records import logs
from underpar.train.checkpoint import complete_checkpoints

AFTER_TRAINING = ("pack", "evaluate", "budget.eval_seconds", "budget.artifact_bytes")
"""Settings that training does not know."""
_TRAINING_LINES = (
    logs.ModelParams,
    logs.WorldSize,
    logs.BatchShape,
    logs.Seed,
    logs.Reserve,
    logs.TrainStep,
    logs.Validation,
    logs.StopAtCap,
    logs.PeakMemory,
)


def is_after_training(path: str) -> bool:
    """Whether a setting is read by the stages after training alone."""
    return any(path == room or path.startswith(f"{room}.") for room in AFTER_TRAINING)


def adopt(resolved: Resolved[Recipe], folder: RunFolder, trained: RunFolder) -> str:
    """Give `folder` the training of the finished run `trained`: checkpoint (linked where the disk can), events, log, figures.

    Returns the fingerprint that the checkpoint carries. Raises UnderparError when that run has not ended, or when the two
    recipes train differently; it names the settings.
    """
    described = read_json(trained.config, "underpar train")
    if trained.path.resolve() == folder.path.resolve():
        raise UnderparError(
            f"{folder.path} is the trained run itself; 'underpar pack' and 'underpar score' repeat its stages"
        )
    if read_json(trained.train, "underpar train")["stop_reason"] == "interrupted":
        raise UnderparError(f"{trained.path} was interrupted; the command that began it goes on from its checkpoint")
    differing = [
        str(change)
        for change in diff(from_dict(described["config"], Recipe), resolved.config)
        if not is_after_training(change.path)
    ]
    if differing:
        raise UnderparError(
            f"{resolved.name} trains differently from {trained.path}: {'; '.join(differing[:4])}; run it without --trained-as"
        )
    found = complete_checkpoints(trained.checkpoints)
    if not found:
        raise UnderparError(f"{trained.checkpoints} has no finished checkpoint; train {described['recipe']} again")
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    shutil.copytree(found[-1], folder.checkpoints / found[-1].name, copy_function=_link)
    for name in ("environment", "events", "trace", "train"):
        shutil.copyfile(getattr(trained, name), getattr(folder, name))
    lines = trained.log.read_text(encoding="utf-8").splitlines()
    training = [line for line in lines if isinstance(logs.parse_line(line), _TRAINING_LINES)]
    folder.log.write_text("".join(f"{line}\n" for line in training), encoding="utf-8")
    return str(described["fingerprint"])


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
