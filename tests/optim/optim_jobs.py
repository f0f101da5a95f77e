"""Optimiser steps in one process or in several, on gradients whose parts sum to the same whole."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from underpar.core.roles import Role
from underpar.core.world import World
from underpar.nn.module import Module
from underpar.optim.adam import Adam
from underpar.optim.clip import GlobalClip, LocalClip
from underpar.optim.muon import Muon
from underpar.optim.muoneqr import MuonEqR
from underpar.optim.normuon import NorMuon
from underpar.optim.orthogonalise import PolarExpress
from underpar.optim.partition import Optim, Optimisers
from underpar.optim.schedules import Settings

STEPS = 4
LIMIT = 20.0
"""Between the norms of large and small steps: some are clipped and some are not."""


def optim_of(case: str) -> Optim:
    matrix = {
        "Muon": Muon(lr=0.04),
        "NorMuon": NorMuon(lr=0.02, weight_decay=0.1),
        "MuonEqR": MuonEqR(lr=0.03, weight_decay=0.1, orthogonalise=PolarExpress()),
        "bfloat16": MuonEqR(lr=0.03, buffer_dtype="bfloat16"),
        "GlobalClip": NorMuon(lr=0.02),
        "LocalClip": Muon(lr=0.02),
        "missing": Muon(lr=0.02, weight_decay=0.1),
    }[case]
    optim = Optim(
        matrix=matrix,
        embedding=Adam(lr=0.03, weight_decay=0.08),
        gain=Adam(lr=0.02, weight_decay=0.02),
        gate=Adam(lr=0.02),
    )
    if case.endswith("Clip"):
        optim.clip = GlobalClip(norm=LIMIT) if case == "GlobalClip" else LocalClip(norm=LIMIT)
    return optim


CASES = ("Muon", "NorMuon", "MuonEqR", "bfloat16", "GlobalClip", "LocalClip", "missing")


class Weights(Module):
    """Parameters of every kind that the optimisers meet: seven matrices of three shapes, a bfloat16 table, gains, a gate."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for index, shape in enumerate([(12, 12), (24, 12), (12, 12), (12, 6), (12, 12), (24, 12), (12, 12)]):
            self.declare(f"matrix{index}", torch.randn(shape, generator=generator), Role.MATRIX)
        self.declare("table", torch.randn(20, 12, generator=generator).bfloat16(), Role.EMBEDDING)
        self.declare("gain0", torch.ones(12), Role.GAIN)
        self.declare("gain1", torch.ones(3, 12), Role.GAIN)
        self.declare("gate", torch.zeros(4, 6), Role.GATE)


def parts(model: Module, step: int, size: int) -> list[list[Tensor]]:
    """For every rank its part of each gradient. The sums are the same for every size, up to rounding."""
    generator = torch.Generator().manual_seed(100 + step)
    wholes = [torch.randn(p.shape, generator=generator) * (1.0 if step % 2 else 0.1) for p in model.parameters()]
    shares = [[torch.rand(w.shape, generator=generator) / size for w in wholes] for _ in range(size - 1)]
    split = [[w * s for w, s in zip(wholes, share, strict=True)] for share in shares]
    last = [w - sum(part[i] for part in split) for i, w in enumerate(wholes)]
    return [[g.to(p.dtype) for g, p in zip(part, model.parameters(), strict=True)] for part in [*split, last]]


def settings_of(step: int) -> Settings:
    return Settings(lr_scale=1.0 - 0.1 * step, momentum=0.85 + 0.02 * step, decay_scale=1.0 - 0.05 * step)


def is_missing(case: str, step: int, index: int, rank: int) -> bool:
    """In the case 'missing', some gradients are missing on some processes, one on all."""
    return case == "missing" and (index == 9 or (index in (1, 4, 7) and (step + index + rank) % 2 == 0))


def give_gradients(model: Module, case: str, step: int, world: World) -> None:
    mine = parts(model, step, world.size)[world.rank]
    for index, (param, grad) in enumerate(zip(model.parameters(), mine, strict=True)):
        param.grad = None if is_missing(case, step, index, world.rank) else grad.clone()


def trained(
    case: str, world: World, first: int = 0, last: int = STEPS, start: Path | None = None
) -> tuple[Module, Optimisers]:
    """Steps `first` to `last`, from the state saved at `start` where that is given."""
    model = Weights()
    optimisers = optim_of(case).build(model, world)
    if start is not None:
        saved = load_file(start)
        with torch.no_grad():
            for name, param in model.named_parameters():
                param.copy_(saved.pop(name))
        optimisers.load_state_tensors(saved)
    for step in range(first, last):
        give_gradients(model, case, step, world)
        optimisers.step(settings_of(step))
    return model, optimisers


def everything(model: Module, optimisers: Optimisers) -> dict[str, Tensor]:
    """Weights and optimiser state by name."""
    state = {name: p.detach() for name, p in model.named_parameters()} | optimisers.state_tensors()
    return {name: t.clone().contiguous() for name, t in state.items()}


def train_all_cases(folder: str) -> None:
    """Every case; each rank writes all that it holds afterwards. Muon also goes on halfway from a saved state of others."""
    torch.set_num_threads(1)
    world = World.join("cpu")
    for case in CASES:
        save_file(everything(*trained(case, world)), Path(folder) / f"{case}-{world.size}-{world.rank}.safetensors")
    for case in ("Muon", "NorMuon"):
        halfway = everything(*trained(case, world, last=2))
        if world.is_main:
            save_file(halfway, Path(folder) / f"{case}-{world.size}-halfway.safetensors")
        world.barrier()
        start = Path(folder) / f"{case}-start.safetensors"
        whole = everything(*trained(case, world, first=2, start=start))
        save_file(whole, Path(folder) / f"{case}-{world.size}-{world.rank}-resumed.safetensors")
    world.leave()
