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
from underpar.optim.decay import CautiousDecay
from underpar.optim.mantissa import Mantissa
from underpar.optim.muon import Muon
from underpar.optim.muoneqr import MuonEqR
from underpar.optim.normuon import NorMuon
from underpar.optim.orthogonalise import PolarExpress
from underpar.optim.partition import Labelled, Optim, Optimisers
from underpar.optim.schedules import Settings
from underpar.optim.sharded_adam import ShardedAdam
from underpar.optim.sided_normuon import SidedNorMuon

STEPS = 4
RESUMED = ("Muon", "NorMuon", "speedrun")
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
        "speedrun": SidedNorMuon(lr=0.02, weight_decay=0.5, decay=CautiousDecay(), orthogonalise=PolarExpress()),
    }[case]
    if case == "speedrun":
        return Optim(
            matrix=matrix,
            embedding=ShardedAdam(lr=0.03, beta1=0.5, weight_decay=0.08, every=2),
            head=ShardedAdam(lr=0.03, beta1=0.5, weight_decay=0.08, every=2),
            gain=ShardedAdam(lr=0.02, every=2),
            gate=ShardedAdam(lr=0.02),
            by_label=(
                Labelled(label="special", optimiser=ShardedAdam(lr=0.05, beta1=0.65, every=2)),
                Labelled(label="halves", optimiser=Muon(lr=0.02, decay=CautiousDecay(), master=Mantissa())),
            ),
        )
    optim = Optim(
        matrix=matrix,
        embedding=Adam(lr=0.03, weight_decay=0.08),
        gain=Adam(lr=0.02, weight_decay=0.02),
        gate=Adam(lr=0.02),
    )
    if case.endswith("Clip"):
        optim.clip = GlobalClip(norm=LIMIT) if case == "GlobalClip" else LocalClip(norm=LIMIT)
    return optim


CASES = ("Muon", "NorMuon", "MuonEqR", "bfloat16", "GlobalClip", "LocalClip", "missing", "speedrun")


class Weights(Module):
    """Parameters of every kind that the optimisers meet: seven matrices of three shapes, a bfloat16 table, gains, a gate.

    The case 'speedrun' has a head beside the table, equal at the start, matrices in bfloat16, and a label.
    """

    def __init__(self, case: str = "") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for index, shape in enumerate([(12, 12), (24, 12), (12, 12), (12, 6), (12, 12), (24, 12), (12, 12)]):
            self.declare(f"matrix{index}", torch.randn(shape, generator=generator), Role.MATRIX)
        self.declare("table", torch.randn(20, 12, generator=generator).bfloat16(), Role.EMBEDDING)
        self.declare("gain0", torch.ones(12), Role.GAIN)
        self.declare("gain1", torch.ones(3, 12), Role.GAIN)
        self.declare("gate", torch.zeros(4, 6), Role.GATE)
        if case == "speedrun":
            self.declare("head", self.table.detach().clone(), Role.HEAD)
            self.declare("gain2", torch.ones(5), Role.GAIN, label="special")
            for index in range(4):
                half = torch.randn((7, 5), generator=generator).bfloat16()
                self.declare(f"half{index}", half, Role.MATRIX, label="halves")
            self.declare("large", torch.randn(300, 300, generator=generator).bfloat16(), Role.GATE)


def parts(model: Module, step: int, size: int) -> list[list[Tensor]]:
    """For every rank its part of each gradient. The sums are the same for every size, up to rounding."""
    generator = torch.Generator().manual_seed(100 + step)
    if hasattr(model, "head"):
        return exact_parts(model, generator, size)
    wholes = [torch.randn(p.shape, generator=generator) * (1.0 if step % 2 else 0.1) for p in model.parameters()]
    shares = [[torch.rand(w.shape, generator=generator) / size for w in wholes] for _ in range(size - 1)]
    split = [[w * s for w, s in zip(wholes, share, strict=True)] for share in shares]
    last = [w - sum(part[i] for part in split) for i, w in enumerate(wholes)]
    return [[g.to(p.dtype) for g, p in zip(part, model.parameters(), strict=True)] for part in [*split, last]]


def exact_parts(model: Module, generator: torch.Generator, size: int) -> list[list[Tensor]]:
    """As `parts`, in eighths: bfloat16 holds parts and sums without rounding, over two steps as well."""
    split: list[list[Tensor]] = [[] for _ in range(size)]
    wholes = [(8 * torch.randn(param.shape, generator=generator)).round() for param in model.parameters()]
    for param, whole in zip(model.parameters(), wholes, strict=True):
        shares = [torch.randint(-8, 9, param.shape, generator=generator).float() for _ in range(size - 1)]
        for part, share in zip(split, [*shares, whole - sum(shares)], strict=True):
            part.append((share / 8).to(param.dtype))
    return split


def settings_of(step: int, case: str = "") -> Settings:
    return Settings(
        lr_scale=1.0 - 0.1 * step,
        momentum=0.85 + 0.02 * step,
        decay_scale=1.0 - 0.05 * step,
        step=step,
        tied=case == "speedrun" and step < 1,
    )


def is_missing(case: str, step: int, index: int, rank: int) -> bool:
    """In the case 'missing', some gradients are missing on some processes, one on all."""
    return case == "missing" and (index == 9 or (index in (1, 4, 7) and (step + index + rank) % 2 == 0))


def give_gradients(model: Module, case: str, step: int, world: World) -> None:
    mine = parts(model, step, world.size)[world.rank]
    for index, (param, grad) in enumerate(zip(model.parameters(), mine, strict=True)):
        if not is_missing(case, step, index, world.rank):
            param.grad = grad.clone() if param.grad is None else param.grad + grad


def trained(
    case: str, world: World, first: int = 0, last: int = STEPS, start: Path | None = None
) -> tuple[Module, Optimisers]:
    """Steps `first` to `last`, from the state saved at `start` where that is given."""
    model = Weights(case)
    optimisers = optim_of(case).build(model, world)
    if start is not None:
        saved = load_file(start)
        with torch.no_grad():
            for name, param in model.named_parameters():
                param.copy_(saved.pop(name))
        optimisers.load_state_tensors(saved)
    for step in range(first, last):
        give_gradients(model, case, step, world)
        optimisers.step(settings_of(step, case))
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
    for case in RESUMED:
        halfway = everything(*trained(case, world, last=2))
        if world.is_main:
            save_file(halfway, Path(folder) / f"{case}-{world.size}-halfway.safetensors")
        world.barrier()
        start = Path(folder) / f"{case}-start.safetensors"
        whole = everything(*trained(case, world, first=2, start=start))
        save_file(whole, Path(folder) / f"{case}-{world.size}-{world.rank}-resumed.safetensors")
    world.leave()
