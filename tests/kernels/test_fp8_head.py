"""The fp8 head: its rounding against an exact head, its gradients against its own rounding, and on Hopper the same there."""

import pytest
import torch
from torch import Tensor

from underpar.core.errors import ConfigError
from underpar.kernels.fp8_head import PUBLISHED_UNITS, fp8_head_loss, op, ref
from underpar.kernels.multi_target_ce import Cap, multi_target_cross_entropy

CAP = Cap(23.0, 5.0, 7.5)


def make(device: torch.device, rows: int = 48, width: int = 64, vocab: int = 160) -> tuple[Tensor, ...]:
    """Hidden states of size 1 each and a weight that gives logits of a trained model's size."""
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(rows, width, generator=generator).bfloat16()
    weight = (0.4 * torch.randn(vocab, width, generator=generator)).bfloat16()
    targets = torch.randint(vocab, (rows,), generator=generator)
    return tuple(t.to(device) for t in (hidden, weight, targets, torch.tensor([1.0, 0.5, 0.2])))


def gradients(loss_of, hidden: Tensor, weight: Tensor, factor: float) -> tuple[Tensor, Tensor, Tensor]:
    leaves = hidden.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    losses = loss_of(*leaves)
    (losses.sum() * factor).backward()
    assert (leaves[0].grad.dtype, leaves[1].grad.dtype) == (hidden.dtype, weight.dtype)
    return losses.detach(), leaves[0].grad.float(), leaves[1].grad.float()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


def check(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> None:
    """Losses near a token and nearer on average, gradients in the right direction and of the right size, at any scale."""

    def exact(h: Tensor, w: Tensor) -> Tensor:
        return multi_target_cross_entropy(h.float() @ w.float().t(), targets, weights, CAP)

    wanted = gradients(exact, hidden, weight, 1.0)
    for factor in (1.0, 0.125, 1e-5, 3e4):
        found = gradients(
            lambda h, w: op.fp8_head(h, w, targets, weights, *CAP, len(targets), *PUBLISHED_UNITS)[0],
            hidden,
            weight,
            factor,
        )
        off = found[0] - wanted[0]
        assert float(off.square().mean().sqrt()) < 0.15
        assert float(off.abs().max()) < 0.5
        assert abs(float(off.mean())) < 0.02
        for ours, theirs in zip(found[1:], wanted[1:], strict=True):
            assert cosine(ours, theirs) > 0.99
            torch.testing.assert_close(ours.norm() / factor, theirs.norm(), rtol=0.02, atol=0.0)


def test_against_the_exact_head() -> None:
    check(*make(torch.device("cpu")))


def test_logits_are_those_of_the_quantised_operands() -> None:
    hidden, weight, targets, weights = make(torch.device("cpu"))
    _, lse, logits, hidden8_turned, weight8_turned = op.fp8_head(
        hidden, weight, targets, weights, *CAP, len(targets), *PUBLISHED_UNITS
    )
    assert (hidden8_turned.dtype, weight8_turned.dtype) == (torch.float8_e4m3fn,) * 2
    back = hidden8_turned.t().double() * PUBLISHED_UNITS.hidden, weight8_turned.t().double() * PUBLISHED_UNITS.weight
    torch.testing.assert_close(logits.double(), back[0] @ back[1].t(), rtol=2**-8, atol=1e-3)
    torch.testing.assert_close(lse.double(), torch.logsumexp(CAP(logits.double()), dim=1), rtol=1e-6, atol=0)


def test_what_is_too_large_is_cut_and_never_nan() -> None:
    values = torch.tensor([1e9, -1e9, 99.9, 0.0])
    codes = ref.quantise(values, PUBLISHED_UNITS.hidden).float() * PUBLISHED_UNITS.hidden
    torch.testing.assert_close(codes, torch.tensor([100.0, -100.0, 100.0, 0.0]), rtol=0.05, atol=0)


def test_without_fp8_the_product_is_in_the_dtype_of_the_hidden_states() -> None:
    hidden, weight, targets, weights = make(torch.device("cpu"))
    logits = torch.nn.functional.linear(hidden, weight)
    expected = multi_target_cross_entropy(logits, targets, weights, CAP)
    assert torch.equal(fp8_head_loss(hidden, weight, targets, weights, CAP), expected)


def test_no_gradient_comes_in_no_gradient_goes_out() -> None:
    hidden, weight, targets, weights = make(torch.device("cpu"))
    _, grad_hidden, grad_weight = gradients(
        lambda h, w: op.fp8_head(h, w, targets, weights, *CAP, len(targets), *PUBLISHED_UNITS)[0], hidden, weight, 0.0
    )
    assert not grad_hidden.any()
    assert not grad_weight.any()


def test_misfits_are_one_line_errors() -> None:
    hidden, weight, targets, weights = make(torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"hidden \(48, 64\) and weight \(160, 63\) do not fit"):
        fp8_head_loss(hidden, weight[:, :63], targets, weights, CAP)


def test_operators_are_well_formed() -> None:
    hidden, weight, targets, weights = make(torch.device("cpu"))
    constants = (*CAP, len(targets), *PUBLISHED_UNITS)
    arguments = (hidden.requires_grad_(), weight.requires_grad_(), targets, weights, *constants)
    torch.library.opcheck(
        op.fp8_head, arguments, test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def test_one_graph() -> None:
    hidden, weight, targets, weights = make(torch.device("cpu"))

    def loss(h: Tensor, w: Tensor) -> Tensor:
        return op.fp8_head(h, w, targets, weights, *CAP, len(targets), *PUBLISHED_UNITS)[0]

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for ours, theirs in zip(
        gradients(compiled, hidden, weight, 1.0), gradients(loss, hidden, weight, 1.0), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(48, 160), (100, 37), (1024, 768)])
def test_a_matrix_becomes_fp8(
    rows: int, columns: int, by_columns: bool, dtype: torch.dtype, cuda: torch.device
) -> None:
    if cuda.type == "cpu":
        pytest.skip("the interpreter's rounding to fp8 loses what carries into the exponent")
    from underpar.kernels.fp8_head.triton import launch_quantise

    values = 60.0 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(3)).to(cuda, dtype)
    values = values.t().contiguous().t() if by_columns else values
    values[1, 2], values[2, 1] = float("nan"), float("inf")
    codes = launch_quantise(values, PUBLISHED_UNITS.hidden, ref.E4M3, ref.LARGEST_E4M3)
    expected = ref.quantise(values, PUBLISHED_UNITS.hidden).float()
    assert expected[1, 2].isnan()
    torch.testing.assert_close(
        codes.float(), expected, rtol=1 / 8, atol=2**-9, equal_nan=True
    )  # a tie may round the other way by one step


@pytest.mark.gpu
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (48, 160), (132, 12), (1024, 772)])
def test_bytes_are_turned(rows: int, columns: int, cuda: torch.device) -> None:
    from underpar.kernels.fp8_head.triton import launch_turn

    matrix = torch.randint(256, (rows, columns), generator=torch.Generator().manual_seed(4), dtype=torch.uint8).to(cuda)
    turned = launch_turn(matrix)
    assert turned.is_contiguous()
    assert torch.equal(turned, matrix.t())


@pytest.mark.gpu
@pytest.mark.parametrize(("rows", "width", "vocab"), [(48, 64, 160), (4096, 768, 50304)])
def test_on_hopper(rows: int, width: int, vocab: int, cuda: torch.device) -> None:
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("fp8 products need compute capability 9.0")
    hidden, weight, targets, weights = make(cuda, rows, width, vocab)
    check(hidden, weight * (64 / width) ** 0.5, targets, weights)
