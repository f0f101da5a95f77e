"""The second stage of a recipe: from a trained run to its artifact."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underpar.compress.gptq import Hessian
from underpar.compress.pack import pack
from underpar.compress.source import pack_source, source_closure
from underpar.core.config import from_dict, to_dict
from underpar.core.errors import UnderparError
from underpar.core.world import World
from underpar.data.tokenizers import load_tokenizer
from underpar.lab.build import build_model
from underpar.lab.calibrate import calibrate
from underpar.lab.effects import reads_of
from underpar.lab.files import RunFolder, read_json, write_json
from underpar.lab.logs import append_sizes
from underpar.lab.say import say
from underpar.model.cost import on_meta
from underpar.nn.module import parameter_roles
from underpar.recipes import Recipe
from underpar.referee.counted_code import ENTRIES
from underpar.train.calibration import Subject
from underpar.train.checkpoint import complete_checkpoints, load_checkpoint
from underpar.train.weights import final_weights


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
            f"warning: calibration took {seconds:.1f} s after the last step, the budget keeps "
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
    subject = Subject(model, data, config.data.loader, load_tokenizer(data).bos_id, config.data.tokenizer.vocab_size)
    return calibrate(subject, config.pack.calibration, config.pack.calibration_tokens)
