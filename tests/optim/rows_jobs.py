"""Adam on a table of which steps touch few rows, by rows or as a whole, in one process or in several."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from underpar.core.roles import Role
from underpar.core.world import World
from underpar.nn.module import Module
from underpar.nn.rows import keep_rows, look_up
from underpar.optim.clip import GlobalClip, LocalClip
from underpar.optim.partition import Optim
from underpar.optim.schedules import Settings
from underpar.optim.sharded_adam import ShardedAdam

ROWS, DIM, STEPS, CHUNKS = 37, 6, 6, 6
"""Rows that divide among neither two nor three processes; chunks of a step that divide among both."""
CASES = ("float32", "bfloat16", "global clip", "local clip", "searched")


class Table(Module):
    """A table of rows that most steps leave alone."""

    table: Tensor

    def __init__(self, dtype: torch.dtype, *, by_rows: bool) -> None:
        super().__init__()
        values = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(3))
        self.declare("table", values.to(dtype), Role.EMBEDDING)
        if by_rows:
            keep_rows(self.table)


def chunk(step: int, number: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows and gradients of some tokens, in eighths: every sum of them is exact. Rows 30 and more are met in step 3 alone."""
    generator = torch.Generator().manual_seed(100 * step + number)
    rows = torch.randint(ROWS if step == 3 else 12, (2, 4), generator=generator)
    return rows, (torch.randint(-8, 9, (2, 4, DIM), generator=generator) / 8).to(dtype)


def trained(case: str, world: World, *, by_rows: bool) -> dict[str, Tensor]:
    """The table and its state after STEPS steps, each process taking its share of the chunks."""
    dtype = torch.bfloat16 if case == "bfloat16" else torch.float32
    module = Table(dtype, by_rows=by_rows)
    clip = {"global clip": GlobalClip(norm=2.0), "local clip": LocalClip(norm=2.0)}.get(case)
    adam = ShardedAdam(lr=0.05, beta1=0.75, weight_decay=0.02, every=2)
    optimisers = Optim(matrix=None, embedding=adam, gain=None, clip=clip).build(module, world)
    for step in range(STEPS):
        for number in world.share(CHUNKS) if step < STEPS - 2 else ():  # nobody touches anything before the last update
            rows, grad = chunk(step, number, dtype)
            plain = case == "searched" and number % 2
            looked_up = F.embedding(rows, module.table) if plain else look_up(module.table, rows)
            looked_up.backward(grad)
        optimisers.step(Settings(1.0 - step / 10, 0.0, decay_scale=1.0, step=step))
    return {"table": module.table.detach().clone()} | optimisers.state_tensors()


def train_by_rows(folder: str) -> None:
    """Every case; each rank writes all that it holds afterwards."""
    torch.set_num_threads(1)
    world = World.join("cpu")
    for case in CASES:
        found = trained(case, world, by_rows=True)
        save_file(found, Path(folder) / f"{case}-{world.size}-{world.rank}.safetensors")
        if case == "local clip":
            wanted = trained(case, world, by_rows=False)
            save_file(wanted, Path(folder) / f"{case}-{world.size}-{world.rank}-whole.safetensors")
    world.leave()
