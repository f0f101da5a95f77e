"""Water-filling: every weight's error costs the same, the budget is filled to a thousandth, the loss is the better for it."""

import math

import pytest
import torch

from underpar.compress.codecs import Mixing
from underpar.compress.container import read_artifact
from underpar.compress.encoded import Encoded, decode, grid_steps
from underpar.compress.gptq import Hessian
from underpar.compress.pack import pack
from underpar.compress.quantise import Gptq, SdClip, quantise
from underpar.compress.rules import ByRule, Rule
from underpar.compress.solver import Waterfill
from underpar.compress.waterfill import prepare
from underpar.compress.writer import build_artifact
from underpar.core.config import from_dict, to_dict
from underpar.core.errors import ArtifactError
from underpar.core.roles import Role


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def case(rows: int, cols: int, seed: int, tokens: int = 2000) -> tuple[torch.Tensor, Hessian]:
    """A weight, and a layer whose inputs are correlated and whose outputs differ in what they do to the loss."""
    x = (
        normal(tokens, cols, seed=seed)
        * normal(cols, seed=seed + 1).mul(0.7).exp()
        @ torch.linalg.qr(normal(cols, cols, seed=seed + 2))[0]
    )
    importance = normal(rows, seed=seed + 3).exp() * tokens * 1e-3
    return normal(rows, cols, seed=seed + 4) * normal(rows, 1, seed=seed + 5).mul(0.4).exp(), Hessian(
        x.T @ x, tokens, importance
    )


def cost(weight: torch.Tensor, found: torch.Tensor, hessian: Hessian) -> float:
    """Loss added to a token, to second order."""
    error = found - weight
    rows = (error @ hessian.gram * error).sum(1) / hessian.tokens
    return float((rows * hessian.output_gradient / hessian.tokens).sum()) / 2


@pytest.fixture(scope="module")
def layers():
    shapes = {"blocks.0.up": (192, 96), "blocks.0.down": (96, 192), "blocks.1.up": (192, 96), "embedding": (400, 96)}
    made = {name: case(*shape, seed=10 * i) for i, (name, shape) in enumerate(shapes.items())}
    tensors = {
        name: (weight, Role.EMBEDDING if name == "embedding" else Role.MATRIX) for name, (weight, _) in made.items()
    }
    tensors |= {"scale": (normal(96), Role.GAIN), "gate": (normal(8, 12), Role.GATE)}
    return tensors, {name: hessian for name, (_, hessian) in made.items()}


def test_steps_are_powers_of_the_eighth_root_of_two() -> None:
    exponents = torch.arange(-640, 640)
    exact = torch.exp2(exponents.double() / 8)
    assert float((grid_steps(exponents) / exact - 1).abs().max()) < 1e-7


def test_a_grid_is_decoded_from_its_parts() -> None:
    codes = torch.randint(-127, 128, (5, 7), dtype=torch.int8)
    rows, columns = torch.tensor([0, 8, -8, 3, 1]).to(torch.int8), torch.arange(-3, 4).to(torch.int8)
    parts = {"codes": codes, "row_steps": rows, "column_steps": columns}
    weight = decode(Encoded("w", Role.MATRIX, (5, 7), "float32", "grid", parts, {"base": -24}))
    expected = codes.double() * torch.exp2((rows.double() - 24) / 8)[:, None] * torch.exp2(columns.double() / 8)
    torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=0)
    for base in (None, 600, 1.5, True):
        with pytest.raises(ArtifactError, match="base"):
            decode(Encoded("w", Role.MATRIX, (5, 7), "float32", "grid", parts, {"base": base}))


def test_every_error_costs_the_same() -> None:
    """Predicted: rows * cols * step^2 / 24, whatever the scale of inputs, weights and derivatives."""
    for seed, size in ((0, 1.0), (50, 30.0)):
        weight, hessian = case(150, 80, seed=seed)
        hessian = Hessian(hessian.gram * size**2, hessian.tokens, hessian.output_gradient / size**2)
        for step in (6e-3, 1.5e-2):  # finer ones would need codes beyond 127
            prepared = prepare(["w"], [weight], [Role.MATRIX], [hessian], damping=1e-4, gradient_floor=0.0)
            found = decode(prepared.encode(step)[0])
            assert cost(weight, found, hessian) == pytest.approx(weight.numel() * step**2 / 24, rel=0.1)


def test_every_pass_of_a_recurrent_layer_counts(layers) -> None:
    """Seen three times as often with the same sums a token and pass, a layer gets steps finer by the root of three."""
    tensors, hessians = layers
    often = {
        name: Hessian(3 * h.gram, 3 * h.tokens, 3 * h.output_gradient) if name == "blocks.0.up" else h
        for name, h in hessians.items()
    }
    once, thrice = (
        {
            item.name: item.meta["base"]
            for item in quantise(tensors, Waterfill(step=0.02), found)
            if item.method == "trellis"
        }
        for found in (hessians, often)
    )
    assert once.pop("blocks.0.up") - thrice.pop("blocks.0.up") in (6, 7)  # eighths of an octave: 8 * log2(3) / 2 = 6.3
    assert once == thrice


def test_rows_too_large_for_the_codes_get_larger_steps() -> None:
    weight, hessian = case(60, 80, seed=3)
    weight[7] *= 1e4
    item = prepare(["w"], [weight], [Role.MATRIX], [hessian]).encode(1e-3)[0]
    assert float((decode(item)[7] - weight[7]).norm() / weight[7].norm()) < 0.1
    others = torch.arange(60) != 7
    assert float((decode(item) - weight)[others].abs().max()) < 1.0


def test_it_beats_one_clip_for_all_at_equal_bytes(layers, tmp_path) -> None:
    tensors, hessians = layers
    rules = ByRule(rules=(Rule(at_most_elements=4096, precision=Gptq(bits=8)), Rule(precision=Gptq(clip=SdClip()))))
    plain = {name: tensors[name] for name in hessians}
    size = len(build_artifact({}, quantise(plain, rules, hessians), Mixing())[0])
    usual = {item.name: decode(item) for item in quantise(plain, rules, hessians)}
    result = pack(
        plain, {}, quantiser=Waterfill(), codec=Mixing(), out_path=tmp_path / "w", hessians=hessians, budget_bytes=size
    )
    assert 0.999 * size <= result.container_bytes <= size
    found = read_artifact(tmp_path / "w").tensors()
    costs = [sum(cost(plain[n][0], weights[n], h) for n, h in hessians.items()) for weights in (usual, found)]
    assert costs[1] < 0.5 * costs[0]


@pytest.mark.parametrize("budget", [36_000, 70_000])
def test_the_budget_is_filled_and_never_exceeded(layers, tmp_path, budget) -> None:
    tensors, hessians = layers
    options = {"codec": Mixing(), "out_path": tmp_path / "w", "hessians": hessians}
    result = pack(tensors, {"a": 1}, quantiser=Waterfill(), budget_bytes=budget, code_bytes=5_000, **options)
    assert 0.999 * (budget - 5_000) <= result.container_bytes <= budget - 5_000
    # The step is part of the account, and repeats the artifact.
    step = float(result.quantiser.removeprefix("Waterfill(step=").removesuffix(")"))
    again = quantise(tensors, Waterfill(step=step), hessians)
    found = read_artifact(tmp_path / "w").tensors()
    for item in again:
        torch.testing.assert_close(decode(item), found[item.name], rtol=0.15, atol=0.2)
    assert torch.equal(found["scale"], tensors["scale"][0].half().float())
    assert {item.name: item.method for item in again}["gate"] == "scaled"


def test_without_derivatives_matrices_count_equally(layers) -> None:
    tensors, hessians = layers
    bare = {name: Hessian(h.gram, h.tokens) for name, h in hessians.items()}
    shares = []
    for item in quantise(tensors, Waterfill(step=0.02), bare):
        if item.name in bare:
            weight, error = tensors[item.name][0], decode(item) - tensors[item.name][0]
            gram = bare[item.name].gram
            shares.append(float((error @ gram * error).mean() / (weight @ gram * weight).mean()) / gram.shape[0])
    assert max(shares) < 3 * min(shares)


def test_what_cannot_be_filled_is_said(layers, tmp_path) -> None:
    tensors, hessians = layers
    with pytest.raises(ArtifactError, match="without a step"):
        quantise(tensors, Waterfill(), hessians)
    with pytest.raises(ArtifactError, match=r"'embedding'.*there is none"):
        quantise(tensors, Waterfill(step=0.1), {k: h for k, h in hessians.items() if k != "embedding"})
    mixed = hessians | {"embedding": Hessian(hessians["embedding"].gram, 2000)}
    with pytest.raises(ArtifactError, match=r"'embedding' lacks the output gradients"):
        quantise(tensors, Waterfill(step=0.1), mixed)
    with pytest.raises(ArtifactError, match="no step brings the container under 900"):
        pack(
            tensors,
            {},
            quantiser=Waterfill(),
            codec=Mixing(),
            out_path=tmp_path / "w",
            hessians=hessians,
            budget_bytes=900,
        )
    assert not list(tmp_path.iterdir())
    assert from_dict(to_dict(Waterfill(step=0.1)), Waterfill) == Waterfill(step=0.1).frozen()
    assert math.isclose(Waterfill().frozen().gradient_floor, 0.3)
