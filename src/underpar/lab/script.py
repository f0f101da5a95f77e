"""The program of a flat script: train, pack, score. `underpar flatten` makes one file of it and of what a recipe reaches.

    torchrun --standalone --nproc_per_node=8 train_gpt.py --data data/fineweb10B_sp1024 --seed 1337

It prints the published log lines and leaves `train_seed<seed>.log` and `artifact_seed<seed>.upar` beside itself.
"""

import argparse
from pathlib import Path

import torch

from underpar.compress.pack import pack
from underpar.core.recipe import Resolved
from underpar.core.world import World
from underpar.evaluate.load import load_model
from underpar.lab.build import build_trainer
from underpar.lab.logs import PublishedLog, calibration_line, memory_line, score_lines, size_lines
from underpar.lab.packing import artifact_header, calibrated
from underpar.lab.scoring import score_loaded
from underpar.nn.module import parameter_roles
from underpar.recipes.base import Recipe
from underpar.records import logs
from underpar.train.events import Sinks
from underpar.train.loop import Trainer


class PrintedLog(PublishedLog):
    """The published lines, in the log and on standard output."""

    def write(self, *lines: logs.LogLine) -> None:
        super().write(*lines)
        for line in lines:
            print(line, flush=True)


def main(config: Recipe, name: str) -> None:
    """One run with the files in the script's own folder. Raises what the stages raise."""
    script = Path(__file__).resolve()
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=script.parent / "data")
    parser.add_argument("--seed", type=int, default=config.seed)
    parser.add_argument("--out", type=Path, default=script.parent)
    parser.add_argument("--device")
    options = parser.parse_args()
    data, out, config.seed = options.data, options.out, options.seed
    resolved = Resolved(name, config.frozen(), (), None, ())
    config = resolved.config
    world = World.join(options.device)
    trainer = build_trainer(resolved, data, world, out / f"checkpoints_seed{config.seed}")
    artifact = out / f"artifact_seed{config.seed}.upar"
    if world.is_main:
        log = PrintedLog.of(config, out / f"train_seed{config.seed}.log", world)
        trainer.sinks = Sinks(required=(log,))
    trainer.run()
    if world.is_main:
        if trainer.on_cuda:
            log.write(memory_line(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()))
        _pack(resolved, trainer, data, artifact, script.stat().st_size, log)
    world.barrier()
    loaded = load_model(artifact, world.device)
    summary, _ = score_loaded(
        loaded, loaded.adaptation, data, world, batch_tokens=config.evaluate.batch_tokens,
        budget_seconds=config.budget.eval_seconds, first_tokens=config.evaluate.first_tokens,
    )  # fmt: skip
    if world.is_main:
        log.write(*score_lines(summary, config.evaluate.window, config.pack))
    world.leave()


def _pack(
    resolved: Resolved[Recipe], trainer: Trainer, data: Path, artifact: Path, code_bytes: int, log: PublishedLog
) -> None:
    """Write the artifact. Raises ArtifactError over the budget."""
    config, model = resolved.config, trainer.model
    weights = trainer.average.averaged() if trainer.average else dict(model.named_parameters())
    order = sorted(weights, key=lambda name: (-weights[name].element_size(), name))  # as a checkpoint holds them
    weights = {name: weights[name].detach().cpu() for name in order}
    roles = parameter_roles(model)
    hessians, seconds = calibrated(config, weights, data)
    if hessians:
        log.write(calibration_line(len(hessians), seconds))
    packed = pack(
        {name: (tensor, roles[name]) for name, tensor in weights.items()},
        artifact_header(config, resolved.name, resolved.fingerprint, data),
        hessians=hessians,
        quantiser=config.pack.quantiser,
        codec=config.pack.codec,
        out_path=artifact,
        budget_bytes=config.budget.artifact_bytes,
        code_bytes=code_bytes,
    )
    log.write(*size_lines(packed.container_bytes, code_bytes, config.pack))
