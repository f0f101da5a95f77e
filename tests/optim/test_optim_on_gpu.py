"""On a GPU elementwise steps are compiled: they must come to what they come to as written."""

import pytest
import torch
from matrices import gradients, named, relative, step, weights

from underpar.core.world import World
from underpar.nn.rows import keep_rows, look_up, touched
from underpar.optim.decay import CautiousDecay
from underpar.optim.mantissa import Mantissa, merge
from underpar.optim.schedules import Settings
from underpar.optim.sharded_adam import ShardedAdam
from underpar.optim.sided_normuon import SidedNorMuon

pytestmark = pytest.mark.gpu


@pytest.fixture
def cuda() -> World:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return World(device="cuda:0")


@pytest.mark.parametrize("kind", ["adam", "normuon"])
def test_a_compiled_step_is_the_step_as_written(cuda: World, kind: str) -> None:
    ends = []
    for world in (World(), cuda):
        normuon = SidedNorMuon(lr=0.05, weight_decay=0.4, decay=CautiousDecay(), master=Mantissa())
        config = ShardedAdam(lr=0.05, weight_decay=0.4) if kind == "adam" else normuon
        params = [torch.nn.Parameter(w.detach().bfloat16().to(world.device)) for w in weights()]
        group = config.build(named(params), world)
        for number, grads in zip(range(3), gradients(31), strict=False):
            settings = Settings(1 - number / 5, 0.9, decay_scale=1 - number / 5)
            step(group, [g.bfloat16().to(world.device) for g in grads], settings)
            group.finish()
        state = group.state_tensors()
        whole = [merge(p.detach(), state[f"w{i}.mantissa"]) if kind == "normuon" else p for i, p in enumerate(params)]
        ends.append([tensor.detach().float().cpu() for tensor in whole])
    for ours, theirs in zip(*ends, strict=True):
        assert relative(ours, theirs) < 0.02  # orthogonalisation is in bfloat16 on a GPU


@pytest.mark.parametrize("tokens", [300, 5000])  # torch sums few and many rows by different kernels
def test_gradients_by_rows_are_those_of_autograd(cuda: World, tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(20_000, 96, generator=generator).bfloat16().to(cuda.device))
    theirs = torch.nn.Parameter(ours.detach().clone())
    keep_rows(ours)
    met = []
    for _ in range(2):
        rows = torch.randint(100, 900, (tokens,), generator=generator).to(cuda.device)
        grad = (torch.randint(-8, 9, (tokens, 96), generator=generator) / 8).bfloat16().to(cuda.device)
        look_up(ours, rows).backward(grad)
        torch.nn.functional.embedding(rows, theirs).backward(grad)
        met.append(rows)
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=2**-7, atol=0.0)  # one place of bfloat16
    found, counts = touched(ours.grad, 500, 40)  # counted on a stream of its own
    assert torch.equal(found, torch.cat(met).unique())
    assert counts[:2] == [int((found < 500).sum()), int((found >= 500).sum())]
    assert sum(counts) == len(found)
