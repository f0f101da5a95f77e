"""Newton-Schulz: the reference against the polynomial of the singular values, the kernel against float64."""

import pytest
import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.dispatch import HAS_TRITON
from underpar.kernels.newton_schulz import newton_schulz, op, ref

FIXED = ((3.4445, -4.7750, 2.0315),)
TWO = ((4.0, -2.8, 0.5), (2.3, -1.8, 0.42))

# (batch, rows, columns), each with its reason.
SHAPES = [
    pytest.param((2, 64, 64), id="one-tile"),
    pytest.param((1, 65, 70), id="one-over-a-tile-mirrors-a-sliver"),
    pytest.param((2, 130, 24), id="tall-is-transposed"),
    pytest.param((1, 1, 9), id="one-row"),
    pytest.param((0, 16, 16), id="no-matrices"),
]


def make(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype).to(device)


def flat(coefficients: tuple[tuple[float, float, float], ...]) -> list[float]:
    return [number for triple in coefficients for number in triple]


@pytest.mark.parametrize("shape", [(3, 6, 9), (2, 9, 6)])
def test_singular_values_follow_the_polynomial(shape: tuple[int, int, int]) -> None:
    batch = make(shape, torch.float64, torch.device("cpu"))
    u, values, vt = torch.linalg.svd(batch, full_matrices=False)
    values = values / (torch.linalg.matrix_norm(batch)[:, None] + 1e-7)
    for a, b, c in TWO:
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(newton_schulz(batch, TWO), u @ torch.diag_embed(values) @ vt)


def test_five_steps_bring_singular_values_near_one() -> None:
    out = newton_schulz(make((2, 32, 48), torch.float32, torch.device("cpu")), FIXED, steps=5)
    values = torch.linalg.svdvals(out)
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_one_tuple_serves_every_step_and_zeros_stay() -> None:
    batch = make((1, 5, 7), torch.float32, torch.device("cpu"))
    assert torch.equal(newton_schulz(batch, FIXED, steps=3), newton_schulz(batch, FIXED * 3))
    assert not newton_schulz(torch.zeros_like(batch), FIXED * 3).any()


def test_misfits_are_one_line_errors() -> None:
    batch = make((1, 5, 7), torch.float32, torch.device("cpu"))
    for call, message in [
        (lambda: newton_schulz(batch[0], FIXED), r"\(5, 7\)"),
        (lambda: newton_schulz(batch.long(), FIXED), "torch.int64"),
        (lambda: newton_schulz(batch, TWO, steps=3), "steps is 3, with 2"),
        (lambda: newton_schulz(batch, FIXED, steps=0), "steps is 0"),
        (lambda: newton_schulz(batch, ((1.0, float("nan"), 0.0),)), "nan"),
    ]:
        with pytest.raises(ConfigError, match=message) as failure:
            call()
        assert "\n" not in str(failure.value)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_parity(shape, dtype, kernel_device, assert_no_worse) -> None:
    if kernel_device.type == "cuda" and dtype == torch.float32:
        pytest.skip("the kernel is for 16 bits; in fp32 a GPU would multiply in tf32")
    batch = make(shape, dtype, kernel_device)
    ours = op.newton_schulz(batch, flat(TWO))
    # Observed up to 1.0 in either precision.
    assert_no_worse(ours, ref.newton_schulz(batch, TWO), ref.newton_schulz(batch.double(), TWO), 1.5)


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [64, 129])
def test_symmetric_product_is_symmetric_to_the_bit(rows, kernel_device, assert_no_worse) -> None:
    from underpar.kernels.newton_schulz.triton import symmetric_product

    dtype = torch.bfloat16 if kernel_device.type == "cuda" else torch.float16
    x = make((2, rows, 40), dtype, kernel_device) / 7
    gram = symmetric_product(x)
    assert torch.equal(gram, gram.mT)
    exact = x.double() @ x.double().mT
    assert_no_worse(gram, x @ x.mT, exact, 1.1)
    polynomial = symmetric_product(gram, alpha=2.0, beta=-1.5)
    assert torch.equal(polynomial, polynomial.mT)
    exact = 2.0 * gram.double() @ gram.double() - 1.5 * gram.double()
    assert_no_worse(polynomial, torch.baddbmm(gram, gram, gram, beta=-1.5, alpha=2.0), exact, 1.1)


@pytest.mark.gpu
def test_operator_is_well_formed(kernel_device) -> None:
    dtype = torch.bfloat16 if kernel_device.type == "cuda" else torch.float32
    for shape in [(2, 16, 24), (2, 24, 16)]:
        torch.library.opcheck(op.newton_schulz, (make(shape, dtype, kernel_device), flat(TWO)))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(18, 512, 512), (9, 1024, 512), (2, 2048, 2048)])
def test_real_shape_compiles_to_one_graph(shape, cuda, assert_no_worse) -> None:
    batch = make(shape, torch.bfloat16, cuda)
    ours = torch.compile(newton_schulz, fullgraph=True, dynamic=False)(batch, FIXED * 5)
    exact = ref.newton_schulz(batch.double(), FIXED * 5)
    assert_no_worse(ours, ref.newton_schulz(batch, FIXED * 5), exact, 1.5)


@pytest.mark.skipif(not HAS_TRITON, reason="the triton package is not installed")
def test_importing_the_room_does_not_import_triton() -> None:
    import subprocess
    import sys

    code = (
        "import sys, underpar.kernels.newton_schulz, underpar.kernels.mlp_act, underpar.kernels.qk_norm_rope, "
        "underpar.kernels.softcapped_ce; assert 'triton' not in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
