"""Artifact -> model, from the file alone: the header holds the architecture, nothing is taken from anywhere else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from underpar.compress.container import read_artifact
from underpar.core.config import from_dict
from underpar.core.errors import ArtifactError, ConfigError
from underpar.evaluate.adaptation import Adaptation
from underpar.evaluate.windows import Window
from underpar.model.gpt import GPT, GPTConfig


@dataclass(frozen=True)
class LoadedModel:
    """A model rebuilt from an artifact, and what the artifact says of itself."""

    model: GPT
    window: Window
    adaptation: Adaptation | None
    """How it learns while it is scored, where it does."""
    tokenizer_identity: dict[str, Any]
    header: dict[str, Any]
    sha256: str


def load_model(path: Path, device: str = "cpu") -> LoadedModel:
    """Rebuild the model, in evaluation mode and frozen, on `device`, computing in bfloat16 on CUDA and float32 elsewhere.

    Raises ArtifactError when the file is damaged, or its tensors do not fit the architecture that its header describes.
    """
    artifact = read_artifact(path)
    try:
        config = from_dict(artifact.header["model"], GPTConfig)
        window = from_dict(artifact.header["window"], Window)
        stated = artifact.header.get("adaptation")
        adaptation = None if stated is None else from_dict(stated, Adaptation)
        identity = artifact.header["tokenizer"]
    except (KeyError, ConfigError) as problem:
        raise ArtifactError(f"{path}: the header describes no model of ours: {problem}") from None
    with torch.device("meta"):
        model = config.build()
    wanted = dict(model.named_parameters())
    tensors = artifact.tensors()
    if wanted.keys() != tensors.keys():
        odd = sorted(wanted.keys() ^ tensors.keys())
        raise ArtifactError(
            f"{path}: the tensors do not fit the architecture; {len(odd)} differ, the first is '{odd[0]}'"
        )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ArtifactError(
                f"{path}: tensor '{name}' has shape {tuple(tensor.shape)}, the architecture needs {tuple(wanted[name].shape)}"
            )
    model = model.to_empty(device=device)
    with torch.no_grad():
        for name, param in model.named_parameters():
            param.copy_(tensors[name])
    model.compute_dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model.eval().requires_grad_(False)
    return LoadedModel(model, window, adaptation, identity, artifact.header, artifact.sha256)
