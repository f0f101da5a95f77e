"""Weight averages against their formulas in float64, and what is kept of them."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from underpar.optim.averaging import EMA, SWA, Averaging, WeightAverage
from underpar.optim.schedules import Settings

BOTH = pytest.mark.parametrize("config", [EMA(decay=0.9), SWA(start_below=1.0, every=2)], ids=str)


def parameters() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "matrix": torch.nn.Parameter(torch.randn(6, 4, generator=generator)),
        "table": torch.nn.Parameter(torch.randn(9, 3, generator=generator).bfloat16()),
        "scalar": torch.nn.Parameter(torch.randn((), generator=generator)),
    }


def walk(
    params: dict[str, Tensor], average: WeightAverage, steps: range, lr_scale: float = 0.4
) -> list[dict[str, Tensor]]:
    """Move the weights at random, one stretch a step, and show each to the average. Returns them in float64."""
    seen = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for param in params.values():
                param.copy_((param + torch.randn(param.shape, generator=generator)).to(param.dtype))
        average.update(step, Settings(lr_scale=lr_scale, momentum=0.9))
        seen.append({name: p.detach().double().clone() for name, p in params.items()})
    return seen


def assert_averages(found: dict[str, Tensor], wanted: dict[str, Tensor], params: dict[str, Tensor]) -> None:
    assert found.keys() == params.keys()
    for name, param in params.items():
        assert found[name].dtype == param.dtype
        torch.testing.assert_close(found[name], wanted[name].float().to(param.dtype), rtol=1e-5, atol=1e-6)


def test_ema_follows_its_formula_from_the_initial_weights() -> None:
    params = parameters()
    average = EMA(decay=0.7).build(params)
    wanted = {name: p.detach().double() for name, p in params.items()}
    assert_averages(average.averaged(), wanted, params)
    for weights in walk(params, average, range(1, 12)):
        wanted = {name: 0.7 * value + 0.3 * weights[name] for name, value in wanted.items()}
    assert_averages(average.averaged(), wanted, params)


def test_ema_of_a_bfloat16_table_sees_changes_that_bfloat16_cannot_hold() -> None:
    table = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    average = EMA(decay=0.999).build({"table": table})
    table.data.fill_(1.0)
    for step in range(1, 1001):
        average.update(step, Settings(1.0, 0.9))
    assert float(average.averaged()["table"][0]) == pytest.approx(1 - 0.999**1000, abs=0.004)


def test_swa_is_the_mean_of_the_snapshots_below_the_rate() -> None:
    params = parameters()
    average = SWA(start_below=0.5, every=3).build(params)
    walk(params, average, range(1, 7), lr_scale=0.5)  # not below
    seen = walk(params, average, range(7, 17), lr_scale=0.49)
    snapshots = [seen[step - 7] for step in (9, 12, 15)]
    wanted = {name: sum(s[name] for s in snapshots) / 3 for name in params}
    assert_averages(average.averaged(), wanted, params)
    assert average.update(17, Settings(0.4, 0.9)) == {"averaging.snapshots": 3.0}


@pytest.mark.parametrize("last", [1, 3])
def test_swa_with_fewer_than_two_snapshots_keeps_the_last_weights(last: int) -> None:
    params = parameters()
    average = SWA(start_below=1.0, every=2).build(params)
    walk(params, average, range(1, last + 1))
    found = average.averaged()
    assert all(torch.equal(found[name], p) for name, p in params.items())
    assert all(
        found[name].data_ptr() != p.data_ptr() for name, p in params.items()
    )  # to be loaded while weights change


def test_the_published_setting_takes_seven_snapshots_from_step_9800() -> None:
    """11,150 steps whose last 3,000 are the warm-down: the rate falls below a half 1,500 steps before the end."""
    param = torch.nn.Parameter(torch.zeros(1))
    average, end, counts = SWA().build({"w": param}), 11_150, []
    for step in range(1, end + 1):
        used = average.update(step, Settings(lr_scale=min(1.0, (end - step) / 3000), momentum=0.99))
        counts.append(used["averaging.snapshots"])
    first = next(step for step, (a, b) in enumerate(pairwise(counts), start=2) if b > a)
    assert (first, counts[-1]) == (9_800, 7.0)


@BOTH
def test_state_taken_and_put_back_goes_on_bit_identically(config: Averaging) -> None:
    params = parameters()
    average = config.build(params)
    walk(params, average, range(1, 6))
    saved = {name: t.clone() for name, t in average.state_tensors().items()}
    assert all(t.dtype == torch.float32 for name, t in saved.items() if name != "snapshots")
    twin_params = {name: torch.nn.Parameter(p.detach().clone()) for name, p in params.items()}
    twin = config.build(twin_params)
    twin.load_state_tensors(saved)
    walk(params, average, range(6, 10))
    walk(twin_params, twin, range(6, 10))
    found, again = average.averaged(), twin.averaged()
    assert all(torch.equal(found[name], again[name]) for name in found)


@BOTH
def test_reset_begins_again_from_the_present_weights(config: Averaging) -> None:
    params = parameters()
    start = {name: p.detach().clone() for name, p in params.items()}
    average = config.build(params)
    walk(params, average, range(1, 6))
    with torch.no_grad():
        for name, param in params.items():
            param.copy_(start[name])
    average.reset()
    walk(params, average, range(1, 6))
    found = average.averaged()
    fresh_params = parameters()
    fresh = config.build(fresh_params)
    walk(fresh_params, fresh, range(1, 6))
    assert all(torch.equal(found[name], value) for name, value in fresh.averaged().items())


@BOTH
def test_the_weights_themselves_are_left_alone(config: Averaging) -> None:
    params = parameters()
    average = config.build(params)
    walk(params, average, range(1, 5))
    before = {name: p.detach().clone() for name, p in params.items()}
    average.update(6, Settings(0.1, 0.9))
    for tensor in average.averaged().values():
        tensor.zero_()
    assert all(torch.equal(before[name], p) for name, p in params.items())
    assert any(t.any() for t in average.averaged().values())


def test_consumed_settings_are_reported() -> None:
    params = parameters()
    assert EMA().build(params).update(1, Settings(1.0, 0.9)) == {"averaging.decay": 0.9965}
    assert SWA().build(params).update(1, Settings(1.0, 0.9)) == {"averaging.snapshots": 0.0}
