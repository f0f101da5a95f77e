"""Trellis-coded quantisation: 1 dB at the same entropy, exact through the container, and known to the mixing coder."""

import numpy as np
import pytest
import torch

from underpar.compress.codecs import Mixing
from underpar.compress.container import read_artifact
from underpar.compress.encoded import decode
from underpar.compress.mixing.compiled import PHASED
from underpar.compress.mixing.references import no_references
from underpar.compress.mixing.settings import find_settings
from underpar.compress.rounding import Nearest, Trellis
from underpar.compress.trellis import NEXT_STATE, halves
from underpar.compress.waterfill import prepare
from underpar.compress.writer import build_artifact
from underpar.core.roles import Role


def entropy(codes: torch.Tensor, given: torch.Tensor) -> float:
    """Bits a code, given which of the two grids it refers to."""
    total = 0.0
    for kind in (False, True):
        counts = torch.unique(codes[given == kind], return_counts=True)[1].double()
        total -= float((counts * torch.log2(counts / counts.sum())).sum())
    return total / codes.numel()


@pytest.mark.parametrize(("std", "least_gain"), [(0.5, 0.05), (1.0, 0.1), (3.0, 0.16), (20.0, 0.16)])
def test_less_error_at_the_same_entropy(std: float, least_gain: float) -> None:
    """In bits a code at equal error, of the 0.25 that any quantiser of many dimensions could gain; few codes gain less."""
    values = std * torch.randn(4, 8000, generator=torch.Generator().manual_seed(0))
    plain, near = Nearest().choose(values, 127)
    codes, found = Trellis().choose(values, 127)
    gain = 0.5 * np.log2(float((near - values).square().mean() / (found - values).square().mean()))
    given = halves(codes.T).T
    assert torch.equal(found, codes.float() + 0.5 * given)
    assert gain - (entropy(codes, given) - entropy(plain, torch.zeros_like(given))) > least_gain


def test_the_path_is_the_best() -> None:
    """Against all paths of five codes."""
    values = torch.tensor([[0.3, -1.2, 2.6, 0.1, 0.9], [5.0, -5.0, 0.25, 0.75, -0.3]])
    codes, found = Trellis().choose(values, 3)
    for row, best in zip(values, (found - values).square().sum(1), strict=True):
        paths = [(0, 0.0)]
        for value in row.tolist():
            paths = [
                (NEXT_STATE[state][code & 1], cost + (value - code - 0.5 * (state & 1)) ** 2)
                for state, cost in paths
                for code in range(-3, 4)
            ]
        assert float(best) == pytest.approx(min(cost for _, cost in paths), rel=1e-5)
    assert int(codes.abs().max()) <= 3


def test_every_state_is_reached_by_two_and_left_for_two() -> None:
    arrivals = [new for pair in NEXT_STATE for new in pair]
    assert sorted(arrivals) == sorted([*range(8), *range(8)])
    assert all(len(set(pair)) == 2 for pair in NEXT_STATE)


def test_it_passes_through_the_container_and_is_smaller_for_its_error() -> None:
    from test_waterfill import case, cost

    weight, hessian = case(300, 200, seed=7)
    prepared = prepare(["w"], [weight], [Role.MATRIX], [hessian])
    results = []
    for rounding in (Nearest(), Trellis()):
        item = prepared.encode(0.01, rounding)[0]
        data, info = build_artifact({}, [item], Mixing())
        assert torch.equal(read_artifact(data).tensor("w"), decode(item))
        results.append((info.coded_bytes["w"], cost(weight, decode(item), hessian)))
    (plain_bytes, plain_cost), (bytes_, cost_) = results
    assert bytes_ < 1.01 * plain_bytes
    assert cost_ < 0.85 * plain_cost


def test_the_coder_recognises_the_trellis() -> None:
    values = torch.randn(300, 100, generator=torch.Generator().manual_seed(1))
    for rounding, expected in ((Nearest(), 0), (Trellis(), 1)):
        codes = rounding.choose(values.T.contiguous(), 127)[0].T.contiguous().numpy()
        chosen = find_settings([codes], [no_references()])[0]
        assert chosen[PHASED] == expected
