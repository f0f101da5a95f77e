"""The program of a flat script: train, pack, score. `underpar flatten` makes one file of it and of what a recipe reaches.

    torchrun --standalone --nproc_per_node=8 train_gpt.py --data data/fineweb10B_sp1024 --seed 1337

It prints the published log lines and leaves `train_seed<seed>.log` and `artifact_seed<seed>.upar` beside itself.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from underpar.core.config import fingerprint, to_dict
from underpar.core.world import World
from underpar.evaluate.score import Score
from underpar.evaluate.scorers import adaptive_scorer
from underpar.evaluate.windows import Sliding
from underpar.lab.build import scorer
from underpar.lab.calibrate import calibrate
from underpar.lab.short.artifact import pack, read_tensors
from underpar.lab.short.data import load_tokenizer
from underpar.lab.short.training import Run
from underpar.model.compiled import compile_model
from underpar.model.gpt import GPT
from underpar.nn.module import parameter_roles
from underpar.recipes.base import Recipe
from underpar.train.calibration import Subject
from underpar.train.weights import set_weights


def main(config: Recipe, name: str) -> None:
    """One run with the files in the script's own folder. Raises what the stages raise."""
    script = Path(__file__).resolve()
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=script.parent / "data")
    parser.add_argument("--seed", type=int, default=config.seed)
    parser.add_argument("--out", type=Path, default=script.parent)
    parser.add_argument("--device")
    options = parser.parse_args()
    config.seed = options.seed
    config = config.frozen()
    world = World.join(options.device)
    lines = options.out / f"train_seed{options.seed}.log"
    if world.is_main:
        lines.write_text("")

    def log(line: str) -> None:
        if world.is_main:
            print(line, flush=True)
            with lines.open("a") as file:
                file.write(f"{line}\n")

    run = Run(config, options.data, world, log)
    weights = run.run()
    artifact = options.out / f"artifact_seed{options.seed}.upar"
    if world.is_main:
        if run.on_cuda:
            held = torch.cuda.max_memory_allocated() >> 20, torch.cuda.max_memory_reserved() >> 20
            log("peak memory allocated: {} MiB reserved: {} MiB".format(*held))
        _pack(run, name, weights, options.data, artifact, script.stat().st_size)
    world.barrier()
    _score(run, _loaded(config, artifact, world.device))
    world.leave()


def _pack(run: Run, name: str, weights: dict[str, Tensor], data: Path, artifact: Path, code_bytes: int) -> None:
    """Write the artifact. Raises ArtifactError over the budget."""
    config, roles, hessians = run.config, parameter_roles(run.model), None
    order = sorted(weights, key=lambda name: (-weights[name].element_size(), name))  # as a checkpoint holds them
    if config.pack.quantiser.needs_hessians:
        set_weights(run.model, weights)
        loader, tokens = config.data.loader, config.data.tokenizer.vocab_size
        subject = Subject(run.model, data, loader, run.bos_id, tokens)
        hessians, seconds = calibrate(subject, config.pack.calibration, config.pack.calibration_tokens)
        run.log(f"GPTQ:collected {len(hessians)} Hessians in {seconds:.2f}s")
    size = pack(
        {name: (weights[name].detach().cpu(), roles[name]) for name in order},
        {
            "model": to_dict(config.model), "window": to_dict(config.evaluate.window),
            "adaptation": to_dict(config.evaluate.adaptation), "tokenizer": load_tokenizer(data).identity, "recipe": name,
            "fingerprint": fingerprint(config),
        },
        hessians=hessians, quantiser=config.pack.quantiser, codec=config.pack.codec, out_path=artifact,
        budget_bytes=config.budget.artifact_bytes, code_bytes=code_bytes,
    )  # fmt: skip
    label = f"{config.pack.quantiser.label}+{config.pack.codec.name}"
    run.log(f"Serialized model {label}: {size} bytes")
    run.log(f"Code size: {code_bytes} bytes")
    run.log(f"Total submission size {label}: {size + code_bytes} bytes")


def _loaded(config: Recipe, artifact: Path, device: str) -> GPT:
    """The model that the artifact holds, on `device`."""
    with torch.device("meta"):
        model = config.model.build()
    model = model.to_empty(device=device)
    set_weights(model, read_tensors(artifact))
    model.compute_dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return model.eval().requires_grad_(False)


def _score(run: Run, model: GPT) -> None:
    """Charge the held-out text and log what that costs."""
    config, world, log = run.config.evaluate, run.world, run.log
    tag = f"{run.config.pack.quantiser.label}_{run.config.pack.codec.name}"
    plain = scorer(model, world)
    found = run.scored(plain)
    if config.adaptation is not None:
        log(_scored(f"{tag}_roundtrip", found))
        compiler = None if world.device == "cpu" else compile_model
        adapting = adaptive_scorer(
            config.adaptation, model, bos_id=run.bos_id, world=world, compiler=compiler, plain=plain
        )
        found = adapting.charge(run.held_out, budget_seconds=run.config.budget.eval_seconds).score(run.held_out)
        tag += "_ttt"
    log(f"val_loader:shards pattern=fineweb_val_*.bin tokens:{found.tokens}")
    form = f"{tag}_roundtrip{{}}"
    if isinstance(config.window, Sliding) and config.adaptation is None:
        form = f"sliding_window{{}} stride:{config.window.stride}"
    log(_scored(form.format(""), found))
    log(f"final_{form.format('_exact')} val_loss:{found.loss_nats:.8f} val_bpb:{found.bpb:.8f}")


def _scored(what: str, found: Score) -> str:
    milliseconds = round(found.eval_seconds * 1e3)
    return f"final_{what} val_loss:{found.loss_nats:.4f} val_bpb:{found.bpb:.4f} eval_time:{milliseconds}ms"
