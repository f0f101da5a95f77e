"""GPTQ: plain rounding where inputs are uncorrelated, better than it where they are not; rules and corrections."""

from dataclasses import replace

import pytest
import torch

from underpar.compress.codecs import Mixing
from underpar.compress.container import read_artifact
from underpar.compress.encoded import decode
from underpar.compress.gptq import Hessian, gptq
from underpar.compress.lowrank import AsymmetricLowRank, SymmetricLowRank
from underpar.compress.quantise import (
    AmaxClip,
    BestQuantileClip,
    Float16,
    Gptq,
    IntRows,
    QuantileClip,
    RoundToNearest,
    SdClip,
    dequantise,
    quantise,
)
from underpar.compress.rules import ByRule, Rule
from underpar.compress.writer import build_artifact
from underpar.core.config import from_dict, to_dict
from underpar.core.errors import ArtifactError
from underpar.core.roles import Role


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def correlated(cols: int, *, seed: int = 1, tokens: int = 4096) -> torch.Tensor:
    """Gram matrix of inputs most of whose variance lies in a few directions."""
    x = normal(tokens, cols, seed=seed) * torch.logspace(0, -1.5, cols)
    return (x @ torch.linalg.qr(normal(cols, cols, seed=seed + 1))[0]).T @ (
        x @ torch.linalg.qr(normal(cols, cols, seed=seed + 1))[0]
    )


def loss(weight: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, gram: torch.Tensor) -> float:
    error = weight - codes.float() * scales[..., None]
    return float((error @ gram * error).sum())


def plain(weight: torch.Tensor, scales: torch.Tensor, high: int) -> torch.Tensor:
    return (weight / scales[..., None]).round().clamp(-high, high).to(torch.int8)


@pytest.mark.parametrize("shape", [(7, 5), (64, 300), (3, 40, 130)])
@pytest.mark.parametrize("factor", [1.0, 37.0])
def test_uncorrelated_inputs_give_plain_rounding(shape, factor) -> None:
    weight = normal(*shape)
    scales = weight.abs().amax(-1) / 20  # codes beyond 15 are clamped
    gram = (torch.eye(shape[-1]) * factor).expand(*shape[:-2], shape[-1], shape[-1])
    assert torch.equal(gptq(weight, gram, scales, 15), plain(weight, scales, 15))


@pytest.mark.parametrize("ordered", [True, False])
def test_correlated_inputs_lose_less(ordered) -> None:
    weight, gram = normal(96, 200), correlated(200)
    scales = weight.std(1) * 12 / 31
    codes = gptq(weight, gram, scales, 31, ordered=ordered)
    assert loss(weight, codes, scales, gram) < 0.5 * loss(weight, plain(weight, scales, 31), scales, gram)
    assert int(codes.abs().max()) <= 31


def test_it_follows_its_definition() -> None:
    """Column by column with an explicit inverse, in float64."""
    weight, gram = normal(24, 40).double(), correlated(40).double()
    scales, high = weight.std(1) * 12 / 31, 31
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(40)
    order = gram.diagonal().argsort(descending=True)
    inverse = torch.linalg.inv(damped[order][:, order])
    left, expected = weight[:, order].clone(), torch.zeros(24, 40, dtype=torch.int8)
    for j in range(40):
        code = (left[:, j] / scales).round().clamp(-high, high)
        expected[:, order[j]] = code.to(torch.int8)
        error = (left[:, j] - code * scales) / inverse[j, j]
        left[:, j:] -= error[:, None] * inverse[j, j:]
        inverse = inverse - inverse[:, j : j + 1] * inverse[j : j + 1] / inverse[j, j]
    found = gptq(weight.float(), gram.float(), scales.float(), high)
    assert (found != expected).float().mean() < 0.01  # ties and float32
    assert loss(weight, found, scales, gram) == pytest.approx(loss(weight, expected, scales, gram), rel=0.02)


def test_blocks_do_not_matter_and_batches_are_independent() -> None:
    weights, grams = normal(3, 16, 100), torch.stack([correlated(100, seed=s) for s in (1, 5, 9)])
    scales = weights.std(-1) * 0.4
    together = gptq(weights, grams, scales, 31)
    for block in (1, 33, 100, 1000):
        assert (gptq(weights, grams, scales, 31, block=block) != together).float().mean() < 0.002
    for i in range(3):
        assert (gptq(weights[i], grams[i], scales[i], 31) != together[i]).float().mean() < 0.002


def test_dead_inputs_get_zero_codes() -> None:
    weight, gram = normal(20, 30), correlated(30)
    dead = torch.tensor([0, 7, 29])
    gram[dead], gram[:, dead] = 0.0, 0.0
    codes = gptq(weight, gram, weight.std(1) * 0.4, 31)
    assert not codes[:, dead].any()
    assert codes[:, 1].any()


def test_singular_and_impossible_hessians() -> None:
    """Fewer tokens than inputs still works, through damping; a matrix that is no Gram matrix does not."""
    weight, x = normal(20, 64), normal(10, 64, seed=3) * 1e4
    scales = weight.std(1) * 0.4
    gram = x.T @ x
    codes = gptq(weight, gram, scales, 31, damping=1e-7)
    assert loss(weight, codes, scales, gram) < 0.2 * loss(weight, plain(weight, scales, 31), scales, gram)
    with pytest.raises(ArtifactError, match="cannot be factored"):
        gptq(weight, torch.eye(64) - 0.5, scales, 31)


# ------------------------------------------------------------------------------------------------- rules


def model() -> tuple[dict, dict]:
    tensors = {"embedding.weight": (normal(300, 64), Role.EMBEDDING), "norm": (normal(64), Role.GAIN)}
    for layer in range(2):
        for name, shape in (("attention.q", (64, 64)), ("mlp.up", (256, 64)), ("mlp.down", (64, 256))):
            tensors[f"blocks.{layer}.{name}.weight"] = (normal(*shape, seed=layer + 10), Role.MATRIX)
        tensors[f"blocks.{layer}.gate"] = (normal(8, 12, seed=layer), Role.GATE)
    hessians = {
        name: Hessian(correlated(tensor.shape[1]), 4096) for name, (tensor, _) in tensors.items() if tensor.numel() > 96
    }
    return tensors, hessians


LATE = ByRule(
    rules=(
        Rule(role="gate", at_least_elements=32, at_most_elements=8192, precision=IntRows()),
        Rule(at_most_elements=4096 - 1, precision=Float16()),
        Rule(role="embedding", precision=Gptq(bits=7, clip=SdClip(sigmas=14.0))),
        Rule(component="mlp", precision=Gptq(clip=SdClip(sigmas=11.5))),
        Rule(component="attention", precision=Gptq(clip=SdClip(sigmas=13.0))),
    ),
    gain=Float16(),
)


def test_rules_choose_by_role_component_and_size() -> None:
    tensors, hessians = model()
    encoded = {item.name: item for item in quantise(tensors, LATE, hessians)}
    assert [encoded[name].meta.get("high") for name in tensors][:6] == [63, None, 31, 31, 31, 127]
    assert encoded["norm"].parts["values"].dtype == torch.float16
    for name, sigmas in (("blocks.1.attention.q.weight", 13.0), ("blocks.1.mlp.up.weight", 11.5)):
        weight = tensors[name][0]
        torch.testing.assert_close(
            encoded[name].parts["scales"], (weight.std(1) * sigmas / 31).half(), rtol=1e-3, atol=0
        )
    assert LATE.label == "int6"
    assert LATE.needs_hessians
    assert from_dict(to_dict(LATE), ByRule) == LATE.frozen()


def test_rules_that_cannot_apply_are_refused() -> None:
    tensors, hessians = model()
    with pytest.raises(ArtifactError, match=r"'ml'.*did you mean 'mlp'"):
        quantise(tensors, ByRule(rules=(Rule(component="ml", precision=IntRows()),)))
    with pytest.raises(ArtifactError, match=r"no rule fits tensor 'embedding\.weight'"):
        quantise(tensors, ByRule(rules=(Rule(component="mlp", precision=IntRows()),)))
    with pytest.raises(ArtifactError, match=r"'blocks\.0\.mlp\.down\.weight'.*there is none"):
        quantise(tensors, LATE, {k: v for k, v in hessians.items() if k != "blocks.0.mlp.down.weight"})
    name = "blocks.0.mlp.up.weight"
    with pytest.raises(ArtifactError, match=r"needs \(in, in\)"):
        quantise(tensors, LATE, hessians | {name: Hessian(torch.eye(65), 1)})
    with pytest.raises(ArtifactError, match="non-finite"):
        quantise(tensors, LATE, hessians | {name: Hessian(torch.full((64, 64), torch.nan), 1)})


def test_best_quantile_is_the_best() -> None:
    weight = normal(64, 4096)
    weight[:, 0] *= 20  # an outlier a row
    errors = {}
    for clip in (BestQuantileClip(), AmaxClip(), *(QuantileClip(quantile=q) for q in BestQuantileClip().quantiles)):
        item = quantise({"w": (weight, Role.MATRIX)}, RoundToNearest(bits=6, clip=clip))[0]
        errors[str(clip)] = float((decode(item) - weight).square().sum())
    assert errors["BestQuantileClip"] == pytest.approx(min(errors.values()), rel=1e-3)
    assert errors["BestQuantileClip"] < 0.9 * errors["AmaxClip"]


# ------------------------------------------------------------------------------------------------- corrections


@pytest.mark.parametrize("correction", [AsymmetricLowRank(count=2), SymmetricLowRank(count=2, bits=6)], ids=str)
def test_corrections_shrink_the_largest_errors(correction) -> None:
    tensors = {}
    for i, size in enumerate((1.0, 8.0, 4.0)):  # what the clip takes off two columns is an error of rank two
        weight = normal(96, 128, seed=i)
        weight[:, 3], weight[:, 70] = weight[:, 3] + 20, weight[:, 70] - 15
        tensors[f"w{i}"] = (size * weight, Role.MATRIX)
    clip = QuantileClip(quantile=0.97)
    bare = quantise(tensors, ByRule(rules=(Rule(precision=IntRows(bits=6, clip=clip)),)))
    mended = quantise(tensors, ByRule(rules=(Rule(precision=IntRows(bits=6, clip=clip)),), correction=correction))
    assert [item.method for item in mended] == ["scaled", "scaled+lowrank", "scaled+lowrank"]
    before, after = dequantise(bare), dequantise(mended)
    for name, (weight, _) in list(tensors.items())[1:]:
        assert float((after[name] - weight).norm()) < 0.8 * float((before[name] - weight).norm())
    with pytest.raises(ArtifactError, match="rank 4 and 3"):
        decode(replace(mended[1], parts=dict(mended[1].parts) | {"right": mended[1].parts["right"][:3]}))
    artifact = read_artifact(build_artifact({}, mended, Mixing())[0])
    for name, weight in after.items():
        assert torch.equal(artifact.tensor(name), weight)


def test_asymmetric_factors_follow_their_definition() -> None:
    error = normal(40, 96)
    left, values, right = torch.linalg.svd(error)
    a, b = left[:, :4] * values[:4], right[:4]
    parts = AsymmetricLowRank().factors("w", a, b)
    scale = (a.abs().max() / 1.5).half()
    assert torch.equal(parts["left_scales"], scale)
    assert torch.equal(parts["left"], (a / scale.float()).round().clamp(-2, 1).to(torch.int8))
    groups = b.reshape(-1, 64)
    scales = (groups.abs().amax(1) / 7.5).half()
    assert torch.equal(parts["right_scales"], scales)
    assert torch.equal(
        parts["right"].reshape(-1, 64), (groups / scales[:, None].float()).round().clamp(-8, 7).to(torch.int8)
    )
    assert AsymmetricLowRank().factors("w", a, b[:, :95])["right_scales"].shape == (4,)  # 380 is no multiple of 64
