"""Quantisers against plain references, and the published payload."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from underpar.compress.encoded import Encoded, decode
from underpar.compress.quantise import (
    AmaxClip,
    Float16,
    Int8PerRow,
    IntRows,
    QuantileClip,
    RoundToNearest,
    SdClip,
    dequantise,
    quantise,
    row_quantile,
)
from underpar.compress.writer import entropy_bytes
from underpar.core.config import from_dict, to_dict
from underpar.core.errors import ArtifactError, ConfigError
from underpar.core.roles import Role


def one(quantiser, tensor, role=Role.MATRIX) -> Encoded:
    return quantise({"w": (tensor, role)}, quantiser)[0]


def test_the_published_payload(baseline_tensors) -> None:
    encoded = quantise(baseline_tensors, Int8PerRow())
    assert sum(item.payload_bytes for item in encoded) == 17_178_912
    assert {item.method for item in encoded if item.role is Role.GAIN} == {"plain"}
    assert sum(item.numel for item in encoded) == 17_059_912


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.9, 0.99999, 0.9999984, 1.0])
@pytest.mark.parametrize("shape", [(3, 1), (5, 2), (7, 100), (4, 1025)])
def test_row_quantile_is_torch_quantile(quantile: float, shape: tuple[int, int]) -> None:
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(3)).abs()
    assert torch.equal(row_quantile(rows, quantile), torch.quantile(rows, quantile, dim=1))


@pytest.mark.parametrize("std", [0.02, 0.3, 5.0])
def test_int8_per_row_follows_its_definition(std: float) -> None:
    """Numpy, row by row; std 0.02 is under the floor of 1/127, 5.0 far above it."""
    weight = torch.randn(200, 400, generator=torch.Generator().manual_seed(4)) * std
    encoded = one(Int8PerRow(), weight)
    rows = weight.numpy()
    clip = np.quantile(np.abs(rows), np.float32(0.9999984), axis=1).astype(np.float32)
    scale = np.maximum(clip / np.float32(127), np.float32(1 / 127))
    codes = np.clip(np.rint(np.clip(rows, -clip[:, None], clip[:, None]) / scale[:, None]), -127, 127)
    assert np.abs(encoded.parts["codes"].numpy() - codes).max() <= 1  # numpy interpolates the quantile in another order
    assert (encoded.parts["codes"].numpy() != codes).mean() < 1e-4
    np.testing.assert_allclose(encoded.parts["scales"].float().numpy(), scale, rtol=2**-11)
    assert encoded.parts["scales"].dtype == torch.float16
    if std == 0.02:
        assert torch.equal(encoded.parts["scales"], torch.full((200,), 1 / 127).half())


def test_int8_per_row_passes_small_tensors_through() -> None:
    table = torch.randn(256, 256).clamp_min(1e-3).bfloat16()  # 65,536 elements: the largest that passes
    kept = one(Int8PerRow(), table, Role.EMBEDDING)
    assert (kept.method, kept.dtype, kept.parts["values"].dtype) == ("plain", "bfloat16", torch.float16)
    assert decode(kept).dtype == torch.bfloat16
    assert torch.equal(decode(kept), table)
    gain = torch.randn(300, 300)
    assert torch.equal(decode(one(Int8PerRow(), gain, Role.GAIN)), gain)
    assert one(Int8PerRow(), torch.randn(257, 256)).method == "scaled"


def test_int8_per_row_gives_other_ranks_one_scale() -> None:
    weight = torch.randn(8, 96, 96, generator=torch.Generator().manual_seed(10))
    encoded = one(Int8PerRow(), weight)
    assert encoded.parts["scales"].shape == ()
    assert encoded.parts["scales"].dtype == torch.float32
    scale = encoded.parts["scales"]
    assert float(weight.abs().max()) / 127.1 < float(scale) * 1.1
    assert (decode(encoded) - weight.clamp(-127 * scale, 127 * scale)).abs().max() <= scale * 0.5001
    zeros = one(Int8PerRow(), torch.zeros(8, 96, 96))
    assert float(zeros.parts["scales"]) == 1.0
    assert not decode(zeros).any()


@pytest.mark.parametrize("bits", [2, 5, 6, 7, 8])
def test_rounding_is_to_the_nearest_step(bits: int) -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(5)) * torch.logspace(-3, 2, 64)[:, None]
    encoded = one(RoundToNearest(bits=bits), weight)
    scale = encoded.parts["scales"].float()[:, None]
    high = 2 ** (bits - 1) - 1
    assert encoded.meta == {"low": -high, "high": high}
    assert int(encoded.parts["codes"].abs().max()) == high
    assert bool(((decode(encoded) - weight).abs() <= scale * 0.5001).all())


@settings(max_examples=40)
@given(
    rows=st.integers(1, 9),
    cols=st.integers(1, 40),
    bits=st.sampled_from([5, 6, 7, 8]),
    size=st.sampled_from([0.05, 1.0, 300.0]),
    seed=st.integers(0, 10**6),
)
def test_a_second_quantisation_changes_nothing(rows: int, cols: int, bits: int, size: float, seed: int) -> None:
    weight = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed)) * size
    assume(float(weight.abs().amax(1).min()) > 0.01)  # below it float16 scales are subnormal, and round too coarsely
    quantiser = RoundToNearest(bits=bits, passthrough_elements=0)
    first = decode(one(quantiser, weight))
    assert torch.equal(decode(one(quantiser, first)), first)


def test_no_coarse_floor_under_small_rows() -> None:
    """The published floor of 1/127 would turn these rows into zeros."""
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(6)) * 1e-3
    ours, published = one(RoundToNearest(bits=8), weight), one(Int8PerRow(passthrough_elements=0), weight)
    assert (decode(ours) - weight).norm() < 0.01 * weight.norm()
    assert (decode(published) - weight).norm() > 0.5 * weight.norm()


def test_clips_trade_range_for_entropy() -> None:
    weight = torch.randn(64, 4096, generator=torch.Generator().manual_seed(7))
    quantile = one(RoundToNearest(bits=6, clip=QuantileClip(quantile=0.99)), weight)
    assert 0.005 < float((quantile.parts["codes"].abs() == 31).float().mean()) < 0.03
    narrow, wide = (one(RoundToNearest(bits=6, clip=SdClip(sigmas=s)), weight) for s in (6.0, 12.0))
    bits = [8 * entropy_bytes(item.parts["codes"]) / weight.numel() for item in (narrow, wide)]
    assert bits[0] - bits[1] == pytest.approx(1.0, abs=0.02)  # twice the clip, one bit less
    assert bits[1] == pytest.approx(np.log2(31 / 12 * np.sqrt(2 * np.pi * np.e)), abs=0.02)


def test_each_role_can_have_its_own_precision() -> None:
    quantiser = RoundToNearest(bits=6, embedding=IntRows(bits=7, clip=SdClip(sigmas=14.0)), gate=Float16())
    weight = torch.randn(64, 64)
    for role, expected in {Role.MATRIX: 31, Role.EMBEDDING: 63, Role.HEAD: 31}.items():
        assert one(quantiser, weight, role).meta["high"] == expected
    assert one(quantiser, weight, Role.GATE).parts["values"].dtype == torch.float16
    assert torch.equal(decode(one(quantiser, weight, Role.GAIN)), weight)
    assert from_dict(to_dict(quantiser), RoundToNearest) == quantiser


@pytest.mark.parametrize("quantiser", [Int8PerRow(), RoundToNearest()], ids=str)
def test_buffers_and_empty_tensors_survive(quantiser) -> None:
    tensors = {
        "steps": (torch.tensor(7), Role.GAIN),
        "mask": (torch.tensor([True, False]), Role.GAIN),
        "order": (torch.arange(9).to(torch.uint16), Role.MATRIX),
        "empty": (torch.zeros(0, 4), Role.MATRIX),
        "one": (torch.tensor([[3.0]]), Role.MATRIX),
    }
    back = dequantise(quantise(tensors, quantiser))
    for name, (tensor, _) in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize("quantiser", [Int8PerRow(passthrough_elements=0), RoundToNearest()], ids=str)
def test_bad_weights_are_named(quantiser) -> None:
    weight = torch.randn(64, 64)
    for value in (float("nan"), float("inf")):
        broken = weight.clone()
        broken[3, 4] = value
        with pytest.raises(ArtifactError, match="'w' has 1 non-finite of 4,096"):
            one(quantiser, broken)
    with pytest.raises(ArtifactError, match=r"'w'.*overflows"):
        one(quantiser, weight * 1e8)
    with pytest.raises(ArtifactError, match=r"'w'.*overflows float16"):
        one(RoundToNearest(), torch.tensor([1e6]))


def test_bits_are_bounded() -> None:
    with pytest.raises(ConfigError, match="bits = 9"):
        RoundToNearest(bits=9).frozen()
    assert RoundToNearest().clip == AmaxClip()
